// Threads that help another one compute, for as long as nothing else wants their cores.
//
// The threads of a team wait for each other after every operation: when one of them loses its core
// to another program, or to this one's server, all of them stand still. Helpers take shares of an
// operation, but nobody waits long for them. They compute beside the result, which is put in place
// if the share is still theirs by then; where that takes long, the thread that they help computes it
// itself. They have the lowest priority: whatever wakes up takes a core of theirs, not of that thread.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <thread>
#include <type_traits>
#include <vector>

namespace snapllm {

class Helpers {
 public:
  static constexpr int kMaxShares = 256;

  // So many threads, or as many as the system has.
  explicit Helpers(int num_threads);
  ~Helpers();
  Helpers(const Helpers&) = delete;
  Helpers& operator=(const Helpers&) = delete;

  // While one lives, they are awake and help the thread that made it. At its end none of them reads
  // anything of that any more.
  class Scope {
   public:
    explicit Scope(Helpers& helpers);
    ~Scope();
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Helpers& helpers_;
  };
  // Those that help this thread; null = none do.
  static Helpers* current();

  int num_threads() const { return static_cast<int>(threads_.size()); }

  // A helper's share, for as long as it has not been taken back.
  class Claim {
   public:
    // If it still holds, what the helper has read so far had not changed yet.
    bool holds() const { return state_->fetch_add(0, std::memory_order_acq_rel) == open_; }

   private:
    friend class Helpers;
    std::atomic<uint64_t>* state_ = nullptr;
    uint64_t open_ = 0;
  };

  // Computes all shares and returns when they are done. `Work`, of which each helper has a copy:
  //   compute(share)                    computes a share where its result belongs
  //   apart_bytes(share)                the room that `compute_apart` wants
  //   compute_apart(share, out, claim)  computes it to `out`, aligned to 64 bytes. The operation may
  //                                     be over by then: what it reads is still memory, whatever it
  //                                     holds, until the end of the scope
  //   put(share, out)                   copies it from there to where it belongs
  // REQUIRES: num_shares <= kMaxShares; a scope of this thread
  template <typename Work>
  void run(const Work& work, int num_shares) {
    static_assert(std::is_trivially_copyable_v<Work> && sizeof(Work) <= kMaxWorkBytes);
    static constexpr Calls calls = {
        [](const void* w, int share) { of<Work>(w).compute(share); },
        [](const void* w, int share) { return of<Work>(w).apart_bytes(share); },
        [](const void* w, int share, std::byte* out, const Claim& claim) {
          of<Work>(w).compute_apart(share, out, claim);
        },
        [](const void* w, int share, std::byte* out) { of<Work>(w).put(share, out); }};
    run(calls, &work, sizeof(Work), num_shares);
  }

 private:
  static constexpr size_t kMaxWorkBytes = 384;
  static constexpr size_t kAlignment = 64;

  struct Calls {
    void (*compute)(const void* work, int share);
    size_t (*apart_bytes)(const void* work, int share);
    void (*compute_apart)(const void* work, int share, std::byte* out, const Claim& claim);
    void (*put)(const void* work, int share, std::byte* out);
  };
  enum class ShareState : uint32_t { kOpen, kBeingPut, kDone, kTakenBack };

  struct AlignedDelete {
    void operator()(std::byte* memory) const {
      ::operator delete(memory, std::align_val_t{kAlignment});
    }
  };
  struct alignas(kAlignment) Thread {
    std::atomic<bool> is_busy{false};  // with a share, maybe
    std::unique_ptr<std::byte, AlignedDelete> apart;
    size_t apart_bytes = 0;
    std::thread thread;
  };

  template <typename Work>
  static const Work& of(const void* work) {
    return *static_cast<const Work*>(work);
  }
  static uint64_t state_of(uint32_t run_number, ShareState state);
  void run(const Calls& calls, const void* work, size_t num_bytes, int num_shares);
  // Returns once a share that a helper took is done.
  void finish(const Calls& calls, const void* work, int share, int64_t patience_ns);
  void help(Thread& self);
  // Computes the next share, if there is one. Returns whether there was.
  bool take_share(Thread& self);
  void compute_share(Thread& self, const Calls& calls, const void* work, int share, Claim claim);
  void wait_until_idle() const;

  // From above: the run's number (32 bits), how many shares it has (16), and which is the next one to
  // be taken (16), if there is such a share.
  alignas(kAlignment) std::atomic<uint64_t> next_{0};
  // Of the run, written while no share of it can be taken.
  alignas(kAlignment) std::atomic<const Calls*> calls_{nullptr};
  std::array<std::atomic<uint64_t>, kMaxWorkBytes / sizeof(uint64_t)> work_{};
  // Of each share: the run's number, and a ShareState.
  std::array<std::atomic<uint64_t>, kMaxShares> states_{};
  uint32_t run_number_ = 0;  // of the thread that is helped
  alignas(kAlignment) std::atomic<int> is_awake_{0};
  std::atomic<bool> is_over_{false};
  std::vector<std::unique_ptr<Thread>> threads_;
};

}  // namespace snapllm
