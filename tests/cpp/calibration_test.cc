#include "registry/calibration.h"

#include <filesystem>
#include <fstream>

#include "check.h"

namespace snapllm {
namespace {

// A file of its own for each test, removed at its end.
struct TempFile {
  explicit TempFile(const std::string& name)
      : path(std::filesystem::temp_directory_path() / ("snapllm_calibration_" + name)) {
    std::filesystem::remove(path);
  }
  ~TempFile() { std::filesystem::remove(path); }
  CalibrationFile open(const std::string& machine = "machine A") const {
    return CalibrationFile(path.string(), machine, posix_file_env());
  }
  const std::filesystem::path path;
};

TEST(calibration, the_fastest_count_wins_and_fewer_threads_win_ties) {
  const auto fastest = [](double one, double two, double four) {
    return fastest_num_threads(4, [&](int32_t n) { return n == 1 ? one : n == 2 ? two : four; });
  };
  CHECK_EQ(fastest(400, 200, 100), 4);
  CHECK_EQ(fastest(400, 100, 200), 2);
  CHECK_EQ(fastest(50, 100, 200), 1);
  CHECK_EQ(fastest(103, 101, 100), 1);
  CHECK_EQ(fastest_num_threads(1, [](int32_t) { return 1.0; }), 1);
}

TEST(calibration, threads_that_are_fast_by_luck_do_not_win) {
  int num_runs = 0;
  const auto time = [&](int32_t threads) {
    if (threads == 1) return 3000.0;
    return num_runs++ % 3 == 0 ? 1500.0 : 20'000.0;
  };
  CHECK_EQ(fastest_num_threads(2, time), 1);
}

TEST(calibration, a_cold_first_run_and_a_hiccup_do_not_decide) {
  for (const int slow_run : {0, 1, 5}) {
    int num_runs = 0;
    const auto time = [&](int32_t threads) {
      if (num_runs++ == slow_run) return 60'000.0;
      return threads == 1 ? 100.0 : 1000.0;
    };
    CHECK_EQ(fastest_num_threads(4, time), 1);
  }
}

TEST(calibration, slow_models_are_not_tried_with_fewer_threads) {
  const auto num_runs_of = [](double us) {
    int num_runs = 0;
    const auto count = [&](int32_t threads) {
      CHECK_EQ(threads, 8);
      ++num_runs;
      return us;
    };
    CHECK_EQ(fastest_num_threads(8, count), 8);
    return num_runs;
  };
  CHECK_EQ(num_runs_of(60'000.0), 3);
  CHECK_EQ(num_runs_of(900'000.0), 2);
}

TEST(calibration, what_was_measured_is_known_in_the_next_run) {
  const TempFile file("known");
  {
    CalibrationFile calibrations = file.open();
    CHECK(!calibrations.find("model one"));
    calibrations.remember("model one", 2);
    calibrations.remember("model two", 1);
    calibrations.remember("model one", 4);
  }
  const CalibrationFile again = file.open();
  CHECK_EQ(again.find("model one").value_or(0), 4);
  CHECK_EQ(again.find("model two").value_or(0), 1);
  CHECK(!file.open("machine B").find("model one"));
}

TEST(calibration, damaged_files_are_no_obstacle) {
  const TempFile file("damaged");
  for (const char* text : {"", "snapllm calibration 1\n", "snapllm calibration 9\nmachine A\nm 2\n",
                           "\xff\xfe\n\n\n", "snapllm calibration 1\nmachine A\nm 0\nn x\no\n 7 -3\n"}) {
    std::ofstream(file.path, std::ios::binary) << text;
    CalibrationFile calibrations = file.open();
    for (const char* key : {"m", "n", "o", " 7"}) CHECK(!calibrations.find(key));
    calibrations.remember("m", 3);
    CHECK_EQ(file.open().find("m").value_or(0), 3);
  }
}

}  // namespace
}  // namespace snapllm
