// Files that are written to while they are mapped: seen, and survived.
#include "backend/mapped_files.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "check.h"

namespace snapllm {
namespace {

namespace fs = std::filesystem;

const auto kPage = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
constexpr size_t kNumPages = 8;

// A file of sevens, mapped into memory.
class MappedFile {
 public:
  MappedFile() {
    std::string name = (fs::temp_directory_path() / "mapped_files_XXXXXX").string();
    const int fd = ::mkstemp(name.data());
    REQUIRE(fd >= 0);
    path = name;
    const std::string content(kNumPages * kPage, 7);
    REQUIRE(::write(fd, content.data(), content.size()) ==
            static_cast<ssize_t>(content.size()));
    data = static_cast<const char*>(
        ::mmap(nullptr, content.size(), PROT_READ, MAP_SHARED, fd, 0));
    ::close(fd);
    REQUIRE(data != MAP_FAILED);
  }
  ~MappedFile() {
    ::munmap(const_cast<char*>(data), kNumPages * kPage);
    fs::remove(path);
  }
  int sum() const {
    int sum = 0;
    for (size_t i = 0; i < kNumPages; ++i) sum += static_cast<const volatile char*>(data)[i * kPage];
    return sum;
  }

  std::string path;
  const char* data = nullptr;
};

TEST(mapped_files, what_a_file_that_was_cut_short_has_lost_is_zeros_and_is_told) {
  MappedFile mapped;
  auto files = MappedFiles::open({mapped.path}).value();
  files.guard(mapped.data, kNumPages * kPage);
  CHECK_EQ(mapped.sum(), 7 * static_cast<int>(kNumPages));
  CHECK(files.are_intact());
  fs::resize_file(mapped.path, 3 * kPage);
  CHECK(!files.are_intact());
  CHECK_EQ(mapped.sum(), 7 * 3);
  fs::resize_file(mapped.path, kNumPages * kPage);
  CHECK(!files.are_intact());
}

TEST(mapped_files, threads_that_read_it_at_once_all_go_on) {
  MappedFile mapped;
  auto files = MappedFiles::open({mapped.path}).value();
  files.guard(mapped.data, kNumPages * kPage);
  fs::resize_file(mapped.path, 0);
  std::vector<std::thread> threads;
  std::atomic<int> total{0};
  for (int i = 0; i < 8; ++i) threads.emplace_back([&] { total += mapped.sum(); });
  for (std::thread& thread : threads) thread.join();
  CHECK_EQ(total, 0);
}

TEST(mapped_files, a_file_that_is_written_over_is_no_longer_intact_and_one_renamed_onto_it_is) {
  MappedFile mapped, other;
  const auto files = MappedFiles::open({mapped.path}).value();
  const std::string link = mapped.path + "_link";
  fs::create_hard_link(mapped.path, link);
  CHECK(files.are_at({mapped.path}));
  fs::rename(other.path, mapped.path);
  CHECK(files.are_intact());
  CHECK(!files.are_at({mapped.path}));
  CHECK(files.are_at({link}));
  fs::remove(link);
  CHECK(files.are_at({link}));  // nothing else would be read
  const auto of_other = MappedFiles::open({mapped.path}).value();
  std::this_thread::sleep_for(std::chrono::milliseconds(20));  // longer than a clock's tick
  std::fstream(mapped.path, std::ios::in | std::ios::out).put(8);
  CHECK(!of_other.are_intact());
  CHECK(files.are_intact());
}

TEST(mapped_files, what_is_mapped_of_a_file_is_found_and_survives_its_loss) {
  MappedFile mapped, other;
  const auto files = MappedFiles::open({mapped.path}).value();
  {
    const auto guards = files.guard_mappings();
    REQUIRE(guards.size() == 1);
    fs::resize_file(mapped.path, kPage);
    CHECK(!guards.front().was_hit());
    CHECK_EQ(mapped.sum(), 7);
    CHECK(guards.front().was_hit());
  }
  // Also where another file has its name by now.
  const auto of_other = MappedFiles::open({other.path}).value();
  fs::rename(mapped.path, other.path);
  CHECK_EQ(of_other.guard_mappings().size(), size_t{1});
}

TEST(mapped_files, of_two_guards_of_one_range_each_tells_what_it_has_lost) {
  MappedFile mapped;
  auto files = MappedFiles::open({mapped.path}).value();
  const MappingGuard other(mapped.data, kNumPages * kPage);
  const auto guards = files.guard_mappings();
  fs::resize_file(mapped.path, 0);
  CHECK_EQ(mapped.sum(), 0);
  CHECK(other.was_hit());
  CHECK(std::ranges::all_of(guards, &MappingGuard::was_hit));
}

TEST(mapped_files, a_file_that_is_missing_is_not_found) {
  CHECK_EQ(MappedFiles::open({"/nowhere/m.gguf"}).status().code(), StatusCode::kFileNotFound);
}

// What the process does at SIGBUS outside of what is guarded, or once nothing is.
TEST(mapped_files, a_signal_for_others_ends_the_process_as_before) {
  for (const bool is_sent : {false, true}) {
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      MappedFile mapped, other;
      auto files = MappedFiles::open({mapped.path}).value();
      files.guard(mapped.data, kNumPages * kPage);
      fs::resize_file(other.path, 0);
      fs::remove(mapped.path);
      fs::remove(other.path);
      if (is_sent) ::raise(SIGBUS);
      if (!is_sent) std::_Exit(other.sum());
      std::_Exit(0);
    }
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    CHECK(WIFSIGNALED(status));
    CHECK_EQ(WTERMSIG(status), SIGBUS);
  }
}

}  // namespace
}  // namespace snapllm
