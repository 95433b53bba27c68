// SPDX-License-Identifier: Apache-2.0
// The level is a property of the run, not of the image: so it goes with -n, where the options of a
// new image cannot, and needs -c.
#include "app/convert_compression.h"

#include "base/diagnostics.h"

namespace ringdisk {
namespace {

constexpr std::string_view kLevelKey = "compression_level";
// Beyond what any format has; which ones there are is the format's to say.
constexpr uint64_t kLevelMax = 1000;

std::string cannot_compress(std::string_view format) {
  return "-c: the format '" + std::string(format) + "' has no compressed clusters";
}

}  // namespace

Result<CompressionRequest> read_compression(const Arguments& arguments, const Options& options,
                                            Diagnostics& diagnostics) {
  CompressionRequest compression;
  compression.wanted = arguments.has("c");
  const std::optional<std::string> text = options.get(kLevelKey);
  if (!text) return compression;
  if (!compression.wanted) return usage_error(diagnostics, "compression_level needs -c");
  const Result<uint64_t> level = parse_size(*text);
  if (!level.ok() || level.value() == 0 || level.value() > kLevelMax) {
    return usage_error(diagnostics, "compression_level is a number from 1 on, not '" + *text + "'");
  }
  compression.level = static_cast<uint32_t>(level.value());
  return compression;
}

Result<void> check_compression(const CompressionRequest& compression, const NewImage& image,
                               Diagnostics& diagnostics) {
  if (!compression.wanted) return {};
  if (!image.admin->compresses()) {
    return diagnostics.explain(Error::of(ErrorKind::kUnsupported, "convert"),
                               cannot_compress(image.admin->name()));
  }
  if (image.options.has("encrypt.format") || image.options.has("encryption")) {
    return usage_error(diagnostics,
                       "-c and encryption exclude each other: compressed clusters cannot be "
                       "encrypted");
  }
  if (image.options.get("preallocation").value_or("off") == "off") return {};
  return usage_error(diagnostics, "-c and preallocation exclude each other");
}

Result<void> check_compression(const CompressionRequest& compression, const DeviceNode& target,
                               Diagnostics& diagnostics) {
  if (!compression.wanted || target.format().limits().compresses) return {};
  return diagnostics.explain(Error::of(ErrorKind::kUnsupported, "convert"), target.id(),
                             cannot_compress(target.format().driver()));
}

void take_compression_level(Options& options) { options.take(kLevelKey); }

}  // namespace ringdisk
