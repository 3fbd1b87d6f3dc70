// What the machine offers.
#pragma once

#include <cstdint>
#include <string>

namespace snapllm {

// Bytes of RAM this process may still take: what the kernel reports as available,
// or what is left of the control group's limit when that is less.
uint64_t available_memory_bytes();

// What processes of the control group (version 2) with that folder may still take; as much as can
// be where it has no limit.
uint64_t group_available_bytes(const std::string& folder);

// The machine as far as speed goes: its processor and the CPUs this process may run on,
// in one line.
std::string machine_description();

// CPUs this process may run on.
int32_t available_cpus();

}  // namespace snapllm
