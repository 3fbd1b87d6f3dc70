// An image model over stable-diffusion.cpp.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace snapllm::diffusion {

// The model could not be loaded, or could not make the image.
class Failure : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// The request was cancelled by its own callback.
class Cancelled : public std::exception {
 public:
  const char* what() const noexcept override { return "cancelled"; }
};

// Files of a model: one file with everything, or its parts. Empty = not given.
struct ModelFiles {
  std::string model;
  std::string diffusion_model;
  std::string vae;
  std::string taesd;
  std::string clip_l;
  std::string clip_g;
  std::string t5xxl;
  std::string llm;
  std::string upscaler;
};

struct LoadOptions {
  ModelFiles files;
  int num_threads = 0;  // > 0
  bool flash_attention = false;
};

// 8-bit samples, rows from the top, channels interleaved; no channels = no image.
struct Image {
  uint32_t width = 0;
  uint32_t height = 0;
  uint32_t num_channels = 0;
  std::vector<uint8_t> samples;
};

struct Lora {
  std::string path;
  float weight = 1.0F;
};

// What to make. The caller has checked the ranges: upstream aborts on bad ones.
struct ImageRequest {
  std::string prompt;
  std::string negative_prompt;
  int width = 512;
  int height = 512;
  int num_steps = 20;
  float cfg_scale = 7.0F;
  float guidance = 3.5F;  // distilled guidance, for models that take it
  float strength = 0.75F;
  int64_t seed = 0;  // >= 0; the nth image of a batch has seed + n
  int num_images = 1;
  int clip_skip = -1;     // -1 = the model's own
  std::string sampler;    // "" = the model's own
  std::string scheduler;  // "" = the model's own
  Image init_image;       // RGB
  Image mask;             // one channel, 255 = repaint
  std::vector<Lora> loras;
  int preview_interval = 0;  // steps between previews, 0 = none
};

// Called on the thread that generates. Either throws to stop the request.
struct Observer {
  // A step of `num_steps` is done, `seconds` a step so far.
  std::function<void(int step, int num_steps, float seconds)> on_step;
  // A rough picture of what is there by now.
  std::function<void(int step, const Image&)> on_preview;
};

std::vector<std::string> sampler_names();
std::vector<std::string> scheduler_names();

// One loaded model. Calls of several threads run one after the other, also between
// models: upstream's callbacks belong to the process.
class ImageModel {
 public:
  // Throws Failure.
  explicit ImageModel(const LoadOptions& options);
  ~ImageModel();
  ImageModel(const ImageModel&) = delete;
  ImageModel& operator=(const ImageModel&) = delete;

  // Throws Failure, or what the observer throws.
  std::vector<Image> generate(const ImageRequest& request, const Observer& observer);

  // What its weights and buffers have taken of a device's memory at most, so far; 0 on a CPU.
  uint64_t device_bytes() const;

  // How many times larger `upscale` makes an image; 1 = no upscaler is loaded.
  int upscale_factor() const;
  // REQUIRES: upscale_factor() > 1. Throws Failure.
  Image upscale(const Image& image);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace snapllm::diffusion
