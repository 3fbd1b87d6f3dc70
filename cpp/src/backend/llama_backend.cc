#include "backend/llama_backend.h"

#include <algorithm>
#include <array>
#include <optional>
#include <string_view>
#include <utility>

#include "backend/cpu_kernels.h"
#include "backend/cpu_products.h"
#include "backend/fingerprint.h"
#include "backend/gguf_header.h"
#include "backend/llama_embedder.h"
#include "backend/llama_projector.h"
#include "backend/llama_runtime.h"
#include "backend/llama_text_context.h"
#include "backend/llama_text_model.h"
#include "backend/memory_plan.h"
#include "backend/quantization.h"
#include "base/machine.h"
#include "base/utf8.h"
#include "common.h"
#include "ggml-cpu.h"
#include "llama-model.h"
#include "llama.h"
#include "snapllm/build.h"

namespace snapllm {
namespace {

// Guesses of one step: with those of all that may guess at once they fit a batch.
constexpr int32_t kMaxDraftTokens = 15;
// Elements of q8_0 that share a scale.
constexpr int32_t kQ8BlockSize = 32;
constexpr int32_t kMaxSequences = 64;
constexpr int32_t kMaxContext = 1 << 24;
// Hot prefixes beside the running sequences, where sequence ids cost nothing.
constexpr int32_t kHotSequences = 32;
// Without flash attention every token in the KV memory slows each decode down. On a CPU
// 4,096 of them do by a fifth for a model of a billion parameters, and several times for
// a very small one.
constexpr int32_t kMaxForeignTokensOfPlain = 256;

Status invalid(const std::string& message) { return {StatusCode::kInvalidRequest, message}; }

Status check_options(const ModelOptions& options) {
  if (options.path.empty()) return invalid("the model's path is empty");
  if (options.path.find('\0') != std::string::npos) return invalid("the model's path holds a NUL");
  if (options.mmproj_path.find('\0') != std::string::npos) {
    return invalid("mmproj_path holds a NUL");
  }
  if (options.gpu_layers < -1) return invalid("gpu_layers must be -1 or more");
  if (options.context_size != 0 && (options.context_size < 16 || options.context_size > kMaxContext)) {
    return invalid("context_size must be 0 or between 16 and " + std::to_string(kMaxContext));
  }
  if (options.kv_cells != 0 && (options.kv_cells < 16 || options.kv_cells > kMaxContext)) {
    return invalid("kv_cells must be 0 or between 16 and " + std::to_string(kMaxContext));
  }
  if (options.kv_cells != 0 && options.kv_cells < options.context_size) {
    return invalid("kv_cells must not be less than context_size");
  }
  if (options.max_sequences < 1 || options.max_sequences > kMaxSequences) {
    return invalid("max_sequences must be between 1 and 64");
  }
  if (options.batch_tokens < kMaxSequences || options.batch_tokens > 65536) {
    return invalid("batch_tokens must be between 64 and 65536");
  }
  if (options.draft_tokens < 0 || options.draft_tokens > kMaxDraftTokens) {
    return invalid("draft_tokens must be between 0 and 15");
  }
  if (options.ubatch_tokens < kMaxSequences || options.ubatch_tokens > options.batch_tokens) {
    return invalid("ubatch_tokens must be between 64 and batch_tokens");
  }
  if (options.num_threads < 0 || options.num_threads > 512) {
    return invalid("num_threads must be between 0 and 512");
  }
  if (kv_element_bytes(options.kv_type) == 0.0) {
    return invalid("kv_type must be f16, q8_0 or f32, not " + options.kv_type);
  }
  if (options.kv_type == "q8_0" && options.flash_attention == FlashAttention::kOff) {
    return invalid("kv_type must not be q8_0 without flash attention");
  }
  return {};
}

ggml_type to_ggml(const std::string& kv_type) {
  if (kv_type == "f32") return GGML_TYPE_F32;
  return kv_type == "q8_0" ? GGML_TYPE_Q8_0 : GGML_TYPE_F16;
}

bool uses_gpu(const ModelOptions& options) {
  return llama_supports_gpu_offload() && options.gpu_layers != 0;
}

// Whether products with the weights of some type are ours.
bool has_own_products(const ModelOptions& options, const GgufHeader& header) {
  return !uses_gpu(options) &&
         std::any_of(header.types.begin(), header.types.end(), has_product_kernel);
}

// Whether llama.cpp leaves the weights as they lie in the file, mapped into memory, and copies none
// into an order for kernels of its own.
bool keeps_weights_as_they_lie(const ModelOptions& options, const GgufHeader& header) {
  if (uses_gpu(options)) return false;
  const auto holds = [&](auto&& is_one) {
    return std::any_of(header.types.begin(), header.types.end(), is_one);
  };
  // What llama.cpp computes with a copy of these has other bits for some numbers of rows.
  const bool needs_ours = holds([](ggml_type type) {
    const bool is_copied =
        type == GGML_TYPE_Q4_K || (type == GGML_TYPE_Q2_K && ggml_cpu_has_avx512() != 0);
    return is_copied && has_product_kernel(type);
  });
  const auto is_faster_as_copy = [&](ggml_type type) {
    return type == GGML_TYPE_IQ4_NL || type == GGML_TYPE_MXFP4 ||
           (type == GGML_TYPE_Q4_0 && header.has_experts);
  };
  const auto is_faster_as_it_lies = [](ggml_type type) {
    return type == GGML_TYPE_Q4_0 && has_product_kernel(type);
  };
  return needs_ours || (holds(is_faster_as_it_lies) && !holds(is_faster_as_copy));
}

// What computes a model's attention: llama.cpp without flash attention, llama.cpp with
// it, or our kernel in its place.
enum class Attention { kPlain, kFlash, kOwn };

Attention attention_of(const ModelOptions& options, const GgufHeader& header) {
  const bool has_own = !uses_gpu(options) && options.kv_type == "f16" &&
                       std::ranges::all_of(header.head_sizes, has_cpu_attention);
  switch (options.flash_attention) {
    case FlashAttention::kOff: return Attention::kPlain;
    case FlashAttention::kOn: return has_own ? Attention::kOwn : Attention::kFlash;
    case FlashAttention::kAuto: break;
  }
  if (has_own) return Attention::kOwn;
  // llama.cpp's own on a CPU adds up in 16 bits, and in an order that follows from the batch.
  return uses_gpu(options) || options.kv_type == "q8_0" ? Attention::kFlash : Attention::kPlain;
}

llama_flash_attn_type flash_attention_type(const ModelOptions& options, Attention attention) {
  if (attention == Attention::kPlain) return LLAMA_FLASH_ATTN_TYPE_DISABLED;
  const bool may_choose =
      options.flash_attention == FlashAttention::kAuto && uses_gpu(options);
  return may_choose ? LLAMA_FLASH_ATTN_TYPE_AUTO : LLAMA_FLASH_ATTN_TYPE_ENABLED;
}

// KV that one of them computed differs in its last bits from that of another.
std::string fingerprint_name(Attention attention, const GgufHeader& header, bool has_own_products,
                             bool is_long) {
  std::string name = "own 3";
  if (attention == Attention::kPlain) name = "plain";
  if (attention == Attention::kFlash) name = "flash";
  if (has_own_products) name += " products 3";
  if (has_own_products && header.has_experts) name += " experts 1";
  if (header.has_latent_attention) name += " heads 1";
  if (is_long) name += " long";
  return name;
}

// Whether the context is one of those for which llama.cpp takes the factors of long ones.
bool rotates_as_long(const GgufHeader& header, const llama_context* context) {
  const auto size = static_cast<uint32_t>(header.short_context_size);
  return size > 0 && llama_n_ctx_seq(context) > size;
}

ProjectorOptions projector_options(const ModelOptions& options, int32_t num_threads) {
  return {options.mmproj_path, uses_gpu(options), num_threads, options.flash_attention};
}

// Why llama.cpp gave nothing: the file's fault, if memory was not what it lacked.
Status load_failure(const std::string& what, const std::string& errors) {
  constexpr std::array kOutOfMemory = {"insufficient memory", "Cannot allocate memory",
                                       "unable to allocate", "failed to allocate", "out of memory",
                                       "bad_alloc"};
  const bool lacks_memory = std::ranges::any_of(kOutOfMemory, [&](const char* message) {
    return errors.find(message) != std::string::npos;
  });
  return {lacks_memory ? StatusCode::kOutOfMemory : StatusCode::kInvalidModel, what + ": " + errors};
}

// Whether RoPE has whole pairs of numbers to rotate in every layer that has it: ggml's kernel goes
// round for ever where there are none.
bool rotates_pairs(const llama_hparams& hparams) {
  for (uint32_t i = 0; i < hparams.n_layer(); ++i) {
    const bool has_rope =
        hparams.has_rope(i) && !hparams.is_recr(i) && hparams.n_embd_head_k(i) > 0;
    const uint32_t count = hparams.n_rot(i);
    if (has_rope && (count == 0 || count % 2 != 0)) return false;
  }
  return true;
}

// What llama.cpp's load comes back to before each tensor.
struct WeightsLoad {
  const MappedFiles& files;
  const std::atomic<bool>& cancelled;
  std::optional<std::vector<MappingGuard>> guards = {};

  bool go_on() {
    // The files are mapped by now, and what is to be copied is read next.
    if (!guards) guards = files.guard_mappings();
    return !cancelled;
  }
};

Result<LlamaModelPtr> load_weights(const ModelOptions& options, const GgufHeader& header,
                                   const MappedFiles& files, const std::atomic<bool>& cancelled) {
  llama_model_params params = llama_model_default_params();
  if (keeps_weights_as_they_lie(options, header)) params.use_extra_bufts = false;
  params.n_gpu_layers = options.gpu_layers;
  WeightsLoad load{files, cancelled};
  params.progress_callback = [](float, void* data) {
    return static_cast<WeightsLoad*>(data)->go_on();
  };
  params.progress_callback_user_data = &load;
  LlamaLogCapture log;
  LlamaModelPtr model(llama_model_load_from_file(options.path.c_str(), params));
  const bool was_cut = load.guards && std::ranges::any_of(*load.guards, &MappingGuard::was_hit);
  load.guards.reset();  // some of what they guard is mapped no more
  if (!model && cancelled) return Status(StatusCode::kClosed, "the load was cancelled");
  if (!model) return load_failure("Cannot load " + options.path, log.errors());
  if (was_cut) {
    return Status(StatusCode::kInvalidModel,
                  "Cannot load " + options.path + ": a part of the file was gone when it was read");
  }
  if (!llama_model_has_decoder(model.get()) || llama_model_has_encoder(model.get())) {
    return Status(StatusCode::kInvalidModel,
                  "Cannot load " + options.path + ": not a decoder-only text model");
  }
  if (llama_vocab_type(llama_model_get_vocab(model.get())) == LLAMA_VOCAB_TYPE_NONE) {
    return Status(StatusCode::kInvalidModel, "Cannot load " + options.path + ": it has no vocabulary");
  }
  const llama_rope_type rope = llama_model_rope_type(model.get());
  if ((rope == LLAMA_ROPE_TYPE_MROPE || rope == LLAMA_ROPE_TYPE_IMROPE) &&
      !header.has_rope_sections) {
    return Status(StatusCode::kInvalidModel,
                  "Cannot load " + options.path + ": rope.dimension_sections has only zeros");
  }
  if (rope != LLAMA_ROPE_TYPE_NONE && !rotates_pairs(model->hparams)) {
    return Status(StatusCode::kInvalidModel, "Cannot load " + options.path + ": " +
                                                 header.architecture +
                                                 ".rope.dimension_count must be even and not 0");
  }
  return model;
}

Result<LlamaContextPtr> create_context(llama_model* model, const ModelInfo& info,
                                       const ModelOptions& options, Attention attention) {
  llama_context_params params = llama_context_default_params();
  params.n_ctx = static_cast<uint32_t>(info.kv_cells);
  params.n_batch = static_cast<uint32_t>(batch_tokens_of(model, options, info.kv_cells));
  params.n_ubatch = std::min(static_cast<uint32_t>(options.ubatch_tokens), params.n_batch);
  params.n_seq_max = static_cast<uint32_t>(info.num_kv_sequences);
  // Rows of logits; the default reserves one for each token of a batch.
  const int32_t num_rows =
      info.max_sequences + kMaxDraftingSequences * info.draft_tokens + kMaxScoredTokens;
  params.n_outputs_max = std::max(params.n_seq_max, static_cast<uint32_t>(num_rows));
  params.kv_unified = true;
  params.swa_full = false;
  params.flash_attn_type = flash_attention_type(options, attention);
  params.type_k = to_ggml(options.kv_type);
  params.type_v = to_ggml(options.kv_type);
  params.no_perf = true;
  LlamaLogCapture log;
  LlamaContextPtr context(llama_init_from_model(model, params));
  if (!context) return load_failure("no context for " + options.path, log.errors());
  return context;
}

ModelInfo describe(const std::string& model_id, const ModelOptions& options,
                   const GgufHeader& header, const MemoryPlan& plan, Attention attention,
                   const llama_model* model, const LlamaProjector* projector) {
  ModelInfo info;
  info.id = model_id;
  info.path = options.path;
  info.name = header.name.empty() ? model_id : header.name;
  info.architecture = header.architecture;
  std::array<char, 256> description{};
  llama_model_desc(model, description.data(), description.size());
  info.description = valid_utf8(description.data());
  info.quantization = quantization_name(llama_model_ftype(model));
  info.file_bytes = header.file_bytes;
  info.num_parameters = llama_model_n_params(model);
  info.num_layers = llama_model_n_layer(model);
  info.vocab_size = llama_vocab_n_tokens(llama_model_get_vocab(model));
  info.embedding_size = llama_model_n_embd_out(model);
  info.train_context_size = llama_model_n_ctx_train(model);
  info.context_size = plan.context_size;
  info.kv_cells = plan.kv_cells;
  info.weights_bytes = llama_model_size(model);
  info.kv_bytes = plan.kv_bytes;
  info.gpu_layers = options.gpu_layers;
  info.projector_bytes = plan.projector_bytes;
  info.flash_attention = attention != Attention::kPlain;
  const bool is_recurrent = llama_model_is_recurrent(model) || llama_model_is_hybrid(model);
  int32_t most = is_recurrent ? kMaxRecurrentSequences : kMaxSequences;
  if (!can_batch_sequences(header.architecture)) most = 1;
  info.max_sequences = std::min(options.max_sequences, most);
  info.mmproj_path = options.mmproj_path;
  const bool is_block = kv_kind_of(model, projector) == KvKind::kBlocks;
  info.draft_tokens = is_block ? options.draft_tokens : 0;
  info.num_hot_sequences = is_block ? kHotSequences : kHotCheckpoints;
  info.num_kv_sequences = info.max_sequences + info.num_hot_sequences + (is_block ? 1 : 0);
  info.max_hot_tokens = info.kv_cells / 2;
  info.max_foreign_tokens = info.max_hot_tokens;
  if (attention == Attention::kPlain) {
    info.max_foreign_tokens = std::min(kMaxForeignTokensOfPlain, info.max_hot_tokens);
  } else if (uses_gpu(options)) {
    // A conversation of any length: from RAM it would come hundreds of times slower than
    // attention reads it.
    info.max_foreign_tokens = std::max(info.max_hot_tokens, info.context_size);
  }
  info.saves_when_idle = uses_gpu(options);
  info.can_stop = is_block && !uses_gpu(options);
  return info;
}

}  // namespace

LlamaBackend::LlamaBackend(int32_t max_threads)
    : max_threads_(max_threads > 0
                       ? max_threads
                       : std::min(common_cpu_get_num_physical_cores(), available_cpus())) {
  init_llama_runtime();
}

Result<MemoryPlan> LlamaBackend::plan(const ModelOptions& options, uint64_t max_bytes) {
  if (Status status = check_options(options); !status.ok()) return status;
  auto header = read_gguf_header(options.path);
  if (!header.ok()) return header.status();
  if (!header.value().odd_vector.empty() && !uses_gpu(options)) {
    return Status(StatusCode::kInvalidModel, "Cannot load " + options.path + ": on a CPU the tensor " +
                                                 header.value().odd_vector +
                                                 " must be of type f32");
  }
  const auto is_blocks = [](int32_t size) { return size % kQ8BlockSize == 0; };
  if (options.kv_type == "q8_0" && !std::ranges::all_of(header.value().head_sizes, is_blocks)) {
    return invalid("kv_type must not be q8_0 where heads are no multiple of 32 elements");
  }
  ModelOptions decided = options;
  const bool is_plain = attention_of(options, header.value()) == Attention::kPlain;
  decided.flash_attention = is_plain ? FlashAttention::kOff : FlashAttention::kOn;
  uint64_t projector_bytes = 0;
  if (!options.mmproj_path.empty()) {
    const auto needed = LlamaProjector::needed_bytes(projector_options(options, max_threads_));
    if (!needed.ok()) return needed.status();
    projector_bytes = needed.value();
  }
  auto plan = plan_memory(header.value(), decided, max_bytes, projector_bytes, uses_gpu(options));
  if (!plan.ok()) {
    return Status(plan.status().code(), "Cannot load " + options.path + ": " + plan.status().message());
  }
  plan.value().weights_key = weights_key(header.value().paths, options.gpu_layers);
  return plan;
}

uint64_t LlamaBackend::available_bytes() const {
  uint64_t gpu_bytes = 0;
  for (size_t i = 0; i < ggml_backend_dev_count(); ++i) {
    ggml_backend_dev_t device = ggml_backend_dev_get(i);
    if (ggml_backend_dev_type(device) != GGML_BACKEND_DEVICE_TYPE_GPU) continue;
    size_t free = 0, total = 0;
    ggml_backend_dev_memory(device, &free, &total);
    gpu_bytes += free;
  }
  return gpu_bytes > 0 ? gpu_bytes : available_memory_bytes();
}

Result<LoadedModel> LlamaBackend::load(const std::string& model_id, const ModelOptions& options,
                                       const MemoryPlan& plan, const std::atomic<bool>& cancelled) {
  auto header = read_gguf_header(options.path);
  if (!header.ok()) return header.status();
  return guard_llama(StatusCode::kInvalidModel, [&]() -> Result<LoadedModel> {
    // Metadata can be wrong in more ways than the header check knows.
    LlamaAssertTrap trap;
    auto loaded = weights_.get(plan.weights_key, [&]() -> Result<WeightsCache::Weights> {
      auto files = MappedFiles::open(header.value().paths);
      if (!files.ok()) return files.status();
      auto model = load_weights(options, header.value(), files.value(), cancelled);
      if (!model.ok()) return model.status();
      return std::make_shared<const LoadedWeights>(std::move(model).value(),
                                                   std::move(files).value());
    });
    if (!loaded.ok()) return loaded.status();
    const WeightsCache::Weights weights = std::move(loaded).value();
    std::shared_ptr<LlamaProjector> projector;
    if (!options.mmproj_path.empty()) {
      auto created = LlamaProjector::create(weights->model(),
                                            projector_options(options, max_threads_));
      if (!created.ok()) return created.status();
      projector = std::move(created).value();
    }
    auto chat_format =
        LlamaChatFormat::create(weights->model(), options.chat_template, projector);
    if (!chat_format.ok()) {
      return Status(options.chat_template.empty() ? StatusCode::kInvalidModel
                                                  : StatusCode::kInvalidRequest,
                    "the chat template of " + options.path +
                        " cannot be read: " + chat_format.status().message());
    }
    const Attention attention = attention_of(options, header.value());
    ModelInfo info = describe(model_id, options, header.value(), plan, attention,
                              weights->model(), projector.get());
    auto context = create_context(weights->model(), info, options, attention);
    if (!context.ok()) return context.status();
    const bool own_products = has_own_products(options, header.value());
    const bool is_long = rotates_as_long(header.value(), context.value().get());
    const auto fingerprint =
        kv_fingerprint(header.value().paths, options,
                       fingerprint_name(attention, header.value(), own_products, is_long));
    if (!fingerprint.ok()) return fingerprint.status();
    // Else what these weights compute would be kept as that of others.
    if (weights_key(header.value().paths, options.gpu_layers) != plan.weights_key ||
        !weights->are_intact()) {
      return Status(StatusCode::kInvalidModel,
                    "Cannot load " + options.path + ": the file was replaced meanwhile");
    }
    // Without a KV memory there is nothing to generate from, nor where a token sees those after it:
    // llama.cpp aborts where such a prompt is longer than a physical batch.
    info.supports_generation = llama_get_memory(context.value().get()) != nullptr &&
                               llama_get_causal_attn(context.value().get());
    if (!info.supports_generation && projector != nullptr) {
      return Status(StatusCode::kInvalidRequest,
                    "mmproj_path must be empty for a model that only embeds: it is shown nothing");
    }
    auto model =
        std::make_shared<const LlamaTextModel>(weights, header.value().paths,
                                               std::move(chat_format).value(),
                                               std::move(projector), options,
                                               fingerprint.value(), std::move(info));
    const bool is_fixed = options.num_threads > 0;
    const int32_t threads =
        is_fixed ? std::min(options.num_threads, available_cpus()) : max_threads_;
    if (model->info().supports_generation) {
      // llama.cpp's flash attention may share a query out among threads; a GPU needs one.
      const bool tunes = !is_fixed && attention != Attention::kFlash && !uses_gpu(options);
      return LoadedModel{model, std::make_unique<LlamaTextContext>(
                                    model, std::move(context).value(), threads, tunes)};
    }
    context.value().reset();
    auto embedder = LlamaEmbedder::create(model, threads);
    if (!embedder.ok()) return embedder.status();
    return LoadedModel{
        model, std::make_unique<EmbeddingOnlyContext>(std::move(embedder).value(), threads)};
  });
}

std::string system_info() {
  init_llama_runtime();
  return llama_print_system_info();
}

}  // namespace snapllm
