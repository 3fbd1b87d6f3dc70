#include "image_model.h"

#include <malloc.h>

#include <algorithm>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <string_view>
#include <utility>

#include "stable-diffusion.h"

namespace snapllm::diffusion {
namespace {

// Upstream's callbacks and log belong to the process; whoever holds this owns them.
std::mutex& upstream_mutex() {
  static std::mutex mutex;
  return mutex;
}

// What upstream last said of an error, for the message of a Failure.
struct ErrorLog {
  std::string text;

  void clear() { text.clear(); }
  void add(const char* message) {
    if (text.size() > 2000) return;
    if (!text.empty()) text += "; ";
    text += message;
    while (!text.empty() && text.back() == '\n') text.pop_back();
  }
  std::string or_else(const char* otherwise) const { return text.empty() ? otherwise : text; }
};

// What upstream has allocated on a device. Its log is all that tells:
// "flux compute buffer size: 1.50 MB(VRAM)",
// "flux params backend buffer size =   1.50 MB(VRAM) (49 tensors)".
struct DeviceMemory {
  uint64_t loaded = 0;
  uint64_t needed = 0;  // beside it, by the call that took most

  void begin_call() { allocated_ = largest_ = 0; }
  void add(std::string_view message) {
    const size_t size = message.find(" buffer size");
    const size_t number = message.find_first_of("0123456789", size);
    if (number == message.npos || message.find("MB(VRAM)", number) == message.npos) return;
    const double megabytes = std::atof(std::string(message.substr(number)).c_str());
    const auto bytes = static_cast<uint64_t>(megabytes * (1 << 20));
    if (message.substr(0, size).ends_with("compute")) {
      largest_ = std::max(largest_, bytes);  // one goes before the next comes
    } else {
      allocated_ += bytes;
    }
    needed = std::max(needed, allocated_ + largest_);
  }

 private:
  uint64_t allocated_ = 0;
  uint64_t largest_ = 0;
};

// Upstream's callbacks for the time of one call.
class Callbacks {
 public:
  Callbacks(ErrorLog& log, DeviceMemory& memory, const Observer* observer, int preview_interval)
      : log_(log), memory_(memory), observer_(observer), preview_interval_(preview_interval) {
    memory.begin_call();
    log.clear();
    sd_set_log_callback(on_log, this);
    // Without one, upstream prints a progress bar.
    sd_set_progress_callback(on_progress, this);
    if (observer_ != nullptr && observer_->on_preview && preview_interval > 0) {
      sd_set_preview_callback(on_preview, PREVIEW_PROJ, preview_interval, true, false, this);
    }
  }
  ~Callbacks() {
    sd_set_log_callback(nullptr, nullptr);
    sd_set_preview_callback(nullptr, PREVIEW_NONE, 1, false, false, nullptr);
    sd_set_progress_callback([](int, int, float, void*) {}, nullptr);
  }
  Callbacks(const Callbacks&) = delete;
  Callbacks& operator=(const Callbacks&) = delete;

  // Calls upstream. What it throws comes out as Failure, what the observer throws as it is.
  template <typename Call>
  auto guard(const Call& call) const {
    try {
      return call();
    } catch (const std::exception& error) {
      if (observer_threw_) throw;
      throw Failure(error.what());
    }
  }

 private:
  // What upstream says is all that tells its sampler's progress from that of loading and of tiles.
  static void on_log(sd_log_level_t level, const char* text, void* data) {
    if (text == nullptr) return;
    auto* self = static_cast<Callbacks*>(data);
    if (level >= SD_LOG_ERROR) self->log_.add(text);
    const std::string_view line(text);  // "file:line - message"
    const std::string_view message = line.substr(std::min(line.size(), line.find(" - ") + 3));
    if (message.starts_with("generating image: ")) self->is_sampling_ = true;
    if (message.starts_with("sampling completed")) self->is_sampling_ = false;
    self->memory_.add(message);
    // Upstream goes on without the memory and crashes. Nothing else runs yet.
    if (message.find("alloc params backend buffer failed") != message.npos) {
      throw Failure(self->log_.text);
    }
  }

  // An exception is the only way to stop a generation. It passes through C++ frames only, and
  // through none of those that load: they have threads running.
  static void on_progress(int step, int num_steps, float seconds, void* data) {
    auto* self = static_cast<Callbacks*>(data);
    if (self->observer_ == nullptr || !self->is_sampling_) return;
    self->tell([&] { self->observer_->on_step(step, num_steps, seconds); });
  }

  // Upstream keeps the interval but does not heed it.
  static void on_preview(int step, int num_frames, sd_image_t* frames, bool, void* data) {
    auto* self = static_cast<Callbacks*>(data);
    if (num_frames < 1 || frames[0].data == nullptr || step % self->preview_interval_ != 0) return;
    const sd_image_t& frame = frames[0];
    const size_t size = size_t{frame.width} * frame.height * frame.channel;
    const Image image{frame.width, frame.height, frame.channel, {frame.data, frame.data + size}};
    self->tell([&] { self->observer_->on_preview(step, image); });
  }

  template <typename Call>
  void tell(const Call& call) {
    try {
      call();
    } catch (...) {
      observer_threw_ = true;
      throw;
    }
  }

  ErrorLog& log_;
  DeviceMemory& memory_;
  const Observer* observer_;
  const int preview_interval_;
  bool is_sampling_ = false;
  bool observer_threw_ = false;
};

const char* path_or_null(const std::string& path) { return path.empty() ? nullptr : path.c_str(); }

sd_image_t view(const Image& image) {
  // Upstream takes its input as mutable but does not write to it.
  auto* data = const_cast<uint8_t*>(image.samples.data());
  return {image.width, image.height, image.num_channels, image.samples.empty() ? nullptr : data};
}

// Copies an image out of upstream's memory and frees that.
Image take(sd_image_t& image) {
  const size_t size = size_t{image.width} * image.height * image.channel;
  Image taken{image.width, image.height, image.channel, {image.data, image.data + size}};
  std::free(image.data);
  image.data = nullptr;
  return taken;
}

template <typename Enum>
std::vector<std::string> names_of(int count, const char* (*name)(Enum)) {
  std::vector<std::string> names;
  for (int i = 0; i < count; ++i) names.emplace_back(name(static_cast<Enum>(i)));
  return names;
}

}  // namespace

std::vector<std::string> sampler_names() {
  return names_of<sample_method_t>(SAMPLE_METHOD_COUNT, sd_sample_method_name);
}

std::vector<std::string> scheduler_names() {
  return names_of<scheduler_t>(SCHEDULER_COUNT, sd_scheduler_name);
}

struct ImageModel::State {
  ErrorLog errors;
  DeviceMemory memory;
  sd_ctx_t* context = nullptr;
  upscaler_ctx_t* upscaler = nullptr;

  ~State() {
    // Neither takes a null pointer.
    if (context != nullptr) free_sd_ctx(context);
    if (upscaler != nullptr) free_upscaler_ctx(upscaler);
#ifdef __GLIBC__
    malloc_trim(0);
#endif
  }
};

ImageModel::ImageModel(const LoadOptions& options) : state_(std::make_unique<State>()) {
  const std::lock_guard lock(upstream_mutex());
  const Callbacks callbacks(state_->errors, state_->memory, nullptr, 0);
  const ModelFiles& files = options.files;
  sd_ctx_params_t params;
  sd_ctx_params_init(&params);
  params.model_path = path_or_null(files.model);
  params.diffusion_model_path = path_or_null(files.diffusion_model);
  params.vae_path = path_or_null(files.vae);
  params.taesd_path = path_or_null(files.taesd);
  params.clip_l_path = path_or_null(files.clip_l);
  params.clip_g_path = path_or_null(files.clip_g);
  params.t5xxl_path = path_or_null(files.t5xxl);
  params.llm_path = path_or_null(files.llm);
  params.n_threads = options.num_threads;
  params.diffusion_flash_attn = options.flash_attention;
  // A server's model makes more than one image, and also from images.
  params.free_params_immediately = false;
  params.vae_decode_only = false;
  params.lora_apply_mode = LORA_APPLY_AT_RUNTIME;
  state_->context = callbacks.guard([&] { return new_sd_ctx(&params); });
  if (state_->context == nullptr) {
    throw Failure(state_->errors.or_else("the image model could not be loaded"));
  }
  if (!files.upscaler.empty()) {
    state_->upscaler = callbacks.guard([&] {
      return new_upscaler_ctx(files.upscaler.c_str(), false, false, options.num_threads, 128);
    });
    if (state_->upscaler == nullptr) {
      throw Failure(state_->errors.or_else("the upscaler could not be loaded"));
    }
  }
  if (!sd_ctx_supports_image_generation(state_->context)) {
    throw Failure("the model makes no images");
  }
  state_->memory.loaded = std::exchange(state_->memory.needed, 0);
}

ImageModel::~ImageModel() {
  const std::lock_guard lock(upstream_mutex());
  ErrorLog errors;
  DeviceMemory memory;
  const Callbacks callbacks(errors, memory, nullptr, 0);
  state_.reset();
}

std::vector<Image> ImageModel::generate(const ImageRequest& request, const Observer& observer) {
  const std::lock_guard lock(upstream_mutex());
  const Callbacks callbacks(state_->errors, state_->memory, &observer, request.preview_interval);

  sd_img_gen_params_t params;
  sd_img_gen_params_init(&params);
  params.prompt = request.prompt.c_str();
  params.negative_prompt = request.negative_prompt.c_str();
  params.width = request.width;
  params.height = request.height;
  params.clip_skip = request.clip_skip;
  params.seed = request.seed;
  params.batch_count = request.num_images;
  params.strength = request.strength;
  params.init_image = view(request.init_image);
  params.mask_image = view(request.mask);
  std::vector<sd_lora_t> loras;
  for (const Lora& lora : request.loras) loras.push_back({false, lora.weight, lora.path.c_str()});
  params.loras = loras.data();
  params.lora_count = static_cast<uint32_t>(loras.size());

  sd_sample_params_t& sampling = params.sample_params;
  sampling.sample_steps = request.num_steps;
  sampling.guidance.txt_cfg = request.cfg_scale;
  sampling.guidance.distilled_guidance = request.guidance;
  sampling.sample_method = request.sampler.empty()
                               ? sd_get_default_sample_method(state_->context)
                               : str_to_sample_method(request.sampler.c_str());
  sampling.scheduler = request.scheduler.empty()
                           ? sd_get_default_scheduler(state_->context, sampling.sample_method)
                           : str_to_scheduler(request.scheduler.c_str());

  sd_image_t* made =
      callbacks.guard([&] { return generate_image(state_->context, &params); });
  if (made == nullptr) throw Failure(state_->errors.or_else("no image came out"));
  std::vector<Image> images;
  bool complete = true;
  for (int i = 0; i < request.num_images; ++i) {
    if (made[i].data == nullptr) {
      complete = false;
    } else {
      images.push_back(take(made[i]));
    }
  }
  std::free(made);
  if (!complete) throw Failure(state_->errors.or_else("an image of the batch is missing"));
  return images;
}

uint64_t ImageModel::device_bytes() const { return state_->memory.loaded + state_->memory.needed; }

int ImageModel::upscale_factor() const {
  return state_->upscaler == nullptr ? 1 : get_upscale_factor(state_->upscaler);
}

Image ImageModel::upscale(const Image& image) {
  const std::lock_guard lock(upstream_mutex());
  const Callbacks callbacks(state_->errors, state_->memory, nullptr, 0);
  const auto factor = static_cast<uint32_t>(get_upscale_factor(state_->upscaler));
  sd_image_t made =
      callbacks.guard([&] { return ::upscale(state_->upscaler, view(image), factor); });
  if (made.data == nullptr) throw Failure(state_->errors.or_else("the upscaler failed"));
  return take(made);
}

}  // namespace snapllm::diffusion
