#include "base/mapping_guard.h"

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <mutex>
#include <utility>

namespace snapllm {
namespace {

// What a handler of signals may look at: it can take no lock, nor be handed anything.
struct Slot {
  std::atomic<bool> is_taken{false};
  std::atomic<uintptr_t> begin{0};
  std::atomic<uintptr_t> end{0};  // 0 = it guards nothing
  std::atomic<bool> was_hit{false};
};
// A model has one for each of its files. Where there are more, the rest goes unguarded.
std::array<Slot, 1024> g_slots;
constexpr size_t kNoSlot = g_slots.size();
struct sigaction g_previous;

// Puts zeros where the address is in a guarded range.
bool replace_pages(uintptr_t address) {
  const auto page_bytes = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const uintptr_t page = address / page_bytes * page_bytes;
  uintptr_t nearest_end = UINTPTR_MAX;
  // All of them: a range may be guarded twice, and both are asked whether it was hit.
  for (Slot& slot : g_slots) {
    const uintptr_t end = slot.end.load(std::memory_order_acquire);
    if (address < slot.begin.load(std::memory_order_relaxed) || address >= end) continue;
    slot.was_hit.store(true, std::memory_order_release);
    nearest_end = std::min(nearest_end, end);
  }
  if (nearest_end == UINTPTR_MAX) return false;
  // One mapping for all that follows: of those a process has a limited number.
  return ::mmap(reinterpret_cast<void*>(page), nearest_end - page, PROT_READ,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) != MAP_FAILED;
}

void handle(int signal, siginfo_t* info, void*) {
  const int error = errno;
  const bool is_fault = info->si_code > 0;  // and not sent by somebody
  if (!is_fault || !replace_pages(reinterpret_cast<uintptr_t>(info->si_addr))) {
    // What faulted faults again when this returns.
    ::sigaction(signal, &g_previous, nullptr);
    if (!is_fault) ::raise(signal);
  }
  errno = error;
}

void install_handler() {
  struct sigaction ours {};
  ours.sa_sigaction = handle;
  ours.sa_flags = SA_SIGINFO | SA_ONSTACK;
  ::sigemptyset(&ours.sa_mask);
  ::sigaction(SIGBUS, &ours, &g_previous);
}

size_t take_slot() {
  for (size_t i = 0; i < g_slots.size(); ++i) {
    if (!g_slots[i].is_taken.exchange(true)) return i;
  }
  return kNoSlot;
}

}  // namespace

MappingGuard::MappingGuard(const void* begin, size_t size) : slot_(take_slot()) {
  static std::once_flag once;
  std::call_once(once, install_handler);
  if (slot_ == kNoSlot) return;
  Slot& slot = g_slots[slot_];
  slot.was_hit = false;
  slot.begin = reinterpret_cast<uintptr_t>(begin);
  slot.end.store(reinterpret_cast<uintptr_t>(begin) + size, std::memory_order_release);
}

MappingGuard::~MappingGuard() {
  if (slot_ == kNoSlot) return;
  g_slots[slot_].end = 0;
  g_slots[slot_].is_taken = false;
}

MappingGuard::MappingGuard(MappingGuard&& other) noexcept
    : slot_(std::exchange(other.slot_, kNoSlot)) {}

bool MappingGuard::was_hit() const {
  return slot_ != kNoSlot && g_slots[slot_].was_hit.load(std::memory_order_acquire);
}

}  // namespace snapllm
