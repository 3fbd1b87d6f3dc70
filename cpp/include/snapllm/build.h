// Facts about this build.
#pragma once

#include <string>

namespace snapllm {

// Backends and CPU features in one line.
std::string system_info();

}  // namespace snapllm
