#include "kernels/helpers.h"

#include <algorithm>
#include <cassert>
#include <chrono>
#include <cstring>
#include <exception>
#include <utility>

#if defined(__linux__)
#include <sched.h>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace snapllm {
namespace {

using Clock = std::chrono::steady_clock;

constexpr uint64_t kShareBits = 16;
constexpr uint64_t kShareMask = (uint64_t{1} << kShareBits) - 1;

thread_local Helpers* current_helpers = nullptr;

int64_t nanoseconds_since(Clock::time_point start) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - start).count();
}

void pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("isb");
#endif
}

// Waits for a helper that may have lost its core: not for long before it gives its own away, to which
// the system then moves the helper, however busy all others are.
class Wait {
 public:
  void once() {
    constexpr int64_t kSpinNs = 50'000;
    if (nanoseconds_since(start_) < kSpinNs) return pause();
    std::this_thread::sleep_for(std::chrono::microseconds(50));
  }

 private:
  const Clock::time_point start_ = Clock::now();
};

// To the lowest priority, which any thread may. Linux takes a core that runs nothing else for an
// idle one when it looks for where to wake a thread.
void give_way() {
#if defined(__linux__)
  const sched_param none = {};
  sched_setscheduler(0, SCHED_IDLE, &none);
#endif
}

}  // namespace

Helpers::Scope::Scope(Helpers& helpers) : helpers_(helpers) {
  assert(current_helpers == nullptr);
  current_helpers = &helpers_;
  helpers_.is_awake_.store(1);
  helpers_.is_awake_.notify_all();
}

Helpers::Scope::~Scope() {
  helpers_.is_awake_.store(0);
  helpers_.wait_until_idle();
  current_helpers = nullptr;
}

Helpers* Helpers::current() { return current_helpers; }

Helpers::Helpers(int num_threads) {
  threads_.reserve(static_cast<size_t>(num_threads));
  for (int i = 0; i < num_threads; ++i) {
    try {
      auto self = std::make_unique<Thread>();
      self->thread = std::thread([this, at = self.get()] { help(*at); });
      threads_.push_back(std::move(self));
    } catch (const std::exception&) {
      return;  // the system has no more threads, or no memory for them: fewer help
    }
  }
}

Helpers::~Helpers() {
  is_over_.store(true);
  is_awake_.store(1);
  is_awake_.notify_all();
  for (const auto& each : threads_) each->thread.join();
}

// All shares are taken by now, so who is not busy, or becomes so later, takes none.
void Helpers::wait_until_idle() const {
  Wait wait;
  for (const auto& each : threads_) {
    while (each->is_busy.load()) wait.once();
  }
}

uint64_t Helpers::state_of(uint32_t run_number, ShareState state) {
  return static_cast<uint64_t>(run_number) << 32 | static_cast<uint32_t>(state);
}

void Helpers::run(const Calls& calls, const void* work, size_t num_bytes, int num_shares) {
  assert(num_shares <= kMaxShares && current_helpers == this);
  // All shares of the run before are taken: a helper that reads what is written here before its share
  // of this run can be taken does not get one.
  const uint32_t number = ++run_number_;
  calls_.store(&calls, std::memory_order_release);
  for (size_t at = 0; at < num_bytes; at += sizeof(uint64_t)) {
    uint64_t word = 0;
    std::memcpy(&word, static_cast<const std::byte*>(work) + at,
                std::min(sizeof(word), num_bytes - at));
    work_[at / sizeof(word)].store(word, std::memory_order_release);
  }
  for (int share = 0; share < num_shares; ++share) {
    states_[static_cast<size_t>(share)].store(state_of(number, ShareState::kOpen),
                                              std::memory_order_relaxed);
  }
  next_.store(static_cast<uint64_t>(number) << 32 |
              static_cast<uint64_t>(num_shares) << kShareBits);

  std::array<bool, kMaxShares> is_own;
  is_own.fill(false);
  const auto start = Clock::now();
  int num_own = 0;
  while (true) {
    const auto share = static_cast<int>(next_.fetch_add(1) & kShareMask);
    if (share >= num_shares) break;
    calls.compute(work, share);
    is_own[static_cast<size_t>(share)] = true;
    ++num_own;
  }
  if (num_own == num_shares) return;
  constexpr int kPatience = 2;  // times what a share takes this thread
  constexpr int64_t kMinPatienceNs = 20'000;
  const int64_t patience_ns = std::max(
      kMinPatienceNs, kPatience * nanoseconds_since(start) / std::max(num_own, 1));
  for (int share = 0; share < num_shares; ++share) {
    if (!is_own[static_cast<size_t>(share)]) finish(calls, work, share, patience_ns);
  }
}

void Helpers::finish(const Calls& calls, const void* work, int share, int64_t patience_ns) {
  std::atomic<uint64_t>& state = states_[static_cast<size_t>(share)];
  const uint64_t open = state_of(run_number_, ShareState::kOpen);
  const uint64_t done = state_of(run_number_, ShareState::kDone);
  const auto start = Clock::now();
  Wait wait;
  while (true) {
    uint64_t found = state.load(std::memory_order_acquire);
    if (found == done) return;
    if (found == open && nanoseconds_since(start) > patience_ns &&
        state.compare_exchange_strong(found, state_of(run_number_, ShareState::kTakenBack))) {
      return calls.compute(work, share);
    }
    wait.once();
  }
}

void Helpers::help(Thread& self) {
  constexpr int kSpins = 4000;  // before it sleeps; the next step often begins at once
  give_way();
  int spins = 0;
  while (!is_over_.load(std::memory_order_relaxed)) {
    if (take_share(self) || is_awake_.load(std::memory_order_relaxed) != 0) {
      spins = 0;
    } else if (++spins > kSpins) {
      is_awake_.wait(0);
    }
    pause();
  }
}

bool Helpers::take_share(Thread& self) {
  uint64_t next = next_.load(std::memory_order_acquire);
  const auto share = static_cast<int>(next & kShareMask);
  const auto num_shares = static_cast<int>(next >> kShareBits & kShareMask);
  if (share >= num_shares) return false;
  self.is_busy.store(true);
  const Calls* calls = calls_.load(std::memory_order_acquire);
  alignas(kAlignment) std::array<std::byte, kMaxWorkBytes> work;
  for (size_t i = 0; i < work_.size(); ++i) {
    const uint64_t word = work_[i].load(std::memory_order_acquire);
    std::memcpy(work.data() + i * sizeof(word), &word, sizeof(word));
  }
  // Then what was read belongs to the share: it is written only while there is none to be taken.
  if (next_.compare_exchange_strong(next, next + 1)) {
    Claim claim;
    claim.state_ = &states_[static_cast<size_t>(share)];
    claim.open_ = state_of(static_cast<uint32_t>(next >> 32), ShareState::kOpen);
    compute_share(self, *calls, work.data(), share, claim);
  }
  self.is_busy.store(false);
  return true;
}

void Helpers::compute_share(Thread& self, const Calls& calls, const void* work, int share,
                            Claim claim) {
  const size_t num_bytes = calls.apart_bytes(work, share);
  if (self.apart_bytes < num_bytes) {
    self.apart.reset();
    self.apart.reset(static_cast<std::byte*>(
        ::operator new(num_bytes, std::align_val_t{kAlignment}, std::nothrow)));
    self.apart_bytes = self.apart == nullptr ? 0 : num_bytes;
    if (self.apart == nullptr) return;  // the share is taken back
  }
  calls.compute_apart(work, share, self.apart.get(), claim);
  const auto run_number = static_cast<uint32_t>(claim.open_ >> 32);
  uint64_t open = claim.open_;
  if (!claim.state_->compare_exchange_strong(open, state_of(run_number, ShareState::kBeingPut))) {
    return;
  }
  calls.put(work, share, self.apart.get());
  claim.state_->store(state_of(run_number, ShareState::kDone), std::memory_order_release);
}

}  // namespace snapllm
