// What the machine offers.
#pragma once

#include <cstdint>
#include <string>

namespace snapllm {

// Bytes of RAM this process may still take: what the kernel reports as available,
// or what is left of a control group's limit when that is less.
uint64_t available_memory_bytes();

// What a process may still take of what its control groups are limited to, of version 2 and 1: its
// own, as a service manager or a batch system gives one to each job, and all above it; as much as
// can be where none has a limit.
// `groups` is the text of its /proc/self/cgroup, `root` the folder where control groups are.
uint64_t groups_available_bytes(const std::string& groups, const std::string& root);

// The machine as far as speed goes: its processor and the CPUs this process may run on,
// in one line.
std::string machine_description();

// CPUs this process may run on.
int32_t available_cpus();

}  // namespace snapllm
