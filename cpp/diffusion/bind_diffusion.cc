// The module snapllm._diffusion. Errors are RuntimeError with upstream's words; the
// Python side, which has checked every argument, names them in the API's terms.
#include <pybind11/functional.h>
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstring>

#include "image_model.h"

namespace py = pybind11;

namespace snapllm::diffusion {
namespace {

using Samples = py::array_t<uint8_t, py::array::c_style | py::array::forcecast>;

// Of shape (height, width, channels).
Image from_array(const Samples& array) {
  if (array.ndim() != 3) throw py::value_error("an image is (height, width, channels)");
  return {static_cast<uint32_t>(array.shape(1)), static_cast<uint32_t>(array.shape(0)),
          static_cast<uint32_t>(array.shape(2)), {array.data(), array.data() + array.size()}};
}

Samples to_array(const Image& image) {
  Samples array({image.height, image.width, image.num_channels});
  std::memcpy(array.mutable_data(), image.samples.data(), image.samples.size());
  return array;
}

// A model's end waits for what another one computes, whose callbacks need the GIL.
struct DeleteWithoutGil {
  void operator()(ImageModel* model) const {
    const py::gil_scoped_release release;
    delete model;
  }
};
using ModelHolder = std::unique_ptr<ImageModel, DeleteWithoutGil>;

ModelHolder load(const ModelFiles& files, int num_threads, bool flash_attention) {
  const py::gil_scoped_release release;
  return ModelHolder(new ImageModel(LoadOptions{files, num_threads, flash_attention}));
}

std::vector<Samples> generate(ImageModel& model, const ImageRequest& request,
                              const py::function& on_step, const py::object& on_preview) {
  Observer observer;
  observer.on_step = [&](int step, int num_steps, float seconds) {
    const py::gil_scoped_acquire acquire;
    if (!on_step(step, num_steps, seconds).cast<bool>()) throw Cancelled();
  };
  if (!on_preview.is_none()) {
    observer.on_preview = [&](int step, const Image& image) {
      const py::gil_scoped_acquire acquire;
      on_preview(step, to_array(image));
    };
  }
  std::vector<Image> images;
  {
    const py::gil_scoped_release release;
    images = model.generate(request, observer);
  }
  std::vector<Samples> arrays;
  for (const Image& image : images) arrays.push_back(to_array(image));
  return arrays;
}

Samples upscale(ImageModel& model, const Samples& array) {
  const Image image = from_array(array);
  Image made;
  {
    const py::gil_scoped_release release;
    made = model.upscale(image);
  }
  return to_array(made);
}

void bind(py::module_& m) {
  py::register_exception<Cancelled>(m, "Cancelled");
  py::class_<ModelFiles>(m, "ModelFiles")
      .def(py::init<>())
      .def_readwrite("model", &ModelFiles::model)
      .def_readwrite("diffusion_model", &ModelFiles::diffusion_model)
      .def_readwrite("vae", &ModelFiles::vae)
      .def_readwrite("taesd", &ModelFiles::taesd)
      .def_readwrite("clip_l", &ModelFiles::clip_l)
      .def_readwrite("clip_g", &ModelFiles::clip_g)
      .def_readwrite("t5xxl", &ModelFiles::t5xxl)
      .def_readwrite("llm", &ModelFiles::llm)
      .def_readwrite("upscaler", &ModelFiles::upscaler);
  py::class_<ImageRequest>(m, "ImageRequest")
      .def(py::init<>())
      .def_readwrite("prompt", &ImageRequest::prompt)
      .def_readwrite("negative_prompt", &ImageRequest::negative_prompt)
      .def_readwrite("width", &ImageRequest::width)
      .def_readwrite("height", &ImageRequest::height)
      .def_readwrite("num_steps", &ImageRequest::num_steps)
      .def_readwrite("cfg_scale", &ImageRequest::cfg_scale)
      .def_readwrite("guidance", &ImageRequest::guidance)
      .def_readwrite("strength", &ImageRequest::strength)
      .def_readwrite("seed", &ImageRequest::seed)
      .def_readwrite("num_images", &ImageRequest::num_images)
      .def_readwrite("clip_skip", &ImageRequest::clip_skip)
      .def_readwrite("sampler", &ImageRequest::sampler)
      .def_readwrite("scheduler", &ImageRequest::scheduler)
      .def_readwrite("preview_interval", &ImageRequest::preview_interval)
      .def("set_init_image",
           [](ImageRequest& r, const Samples& image) { r.init_image = from_array(image); })
      .def("set_mask", [](ImageRequest& r, const Samples& mask) { r.mask = from_array(mask); })
      .def("add_lora", [](ImageRequest& r, const std::string& path, float weight) {
        r.loras.push_back({path, weight});
      });
  py::class_<ImageModel, ModelHolder>(m, "ImageModel")
      .def(py::init(&load), py::arg("files"), py::arg("num_threads"),
           py::arg("flash_attention") = false)
      .def("generate", &generate, py::arg("request"), py::arg("on_step"),
           py::arg("on_preview") = py::none())
      .def("upscale", &upscale, py::arg("image"))
      .def_property_readonly("device_bytes", &ImageModel::device_bytes)
      .def_property_readonly("upscale_factor", &ImageModel::upscale_factor);
  m.def("sampler_names", &sampler_names);
  m.def("scheduler_names", &scheduler_names);
}

}  // namespace
}  // namespace snapllm::diffusion

PYBIND11_MODULE(_diffusion, m) {
  m.doc() = "Image models over stable-diffusion.cpp, with a ggml of their own.";
  snapllm::diffusion::bind(m);
}
