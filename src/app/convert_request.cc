// SPDX-License-Identifier: Apache-2.0
// The options of convert: their table, and the rules among them.
#include "app/convert_request.h"

#include <array>
#include <bit>

#include "app/image_command_options.h"
#include "app/images.h"
#include "app/long_job.h"
#include "base/diagnostics.h"

namespace ringdisk {
namespace {

constexpr uint64_t kSectorBytes = 512;
constexpr uint64_t kSparseBytesMax = 16 * limits::kMiB;
constexpr uint64_t kRequestsMax = 1024;

constexpr std::array<OptionSpec, 26> kOptions = {{
    {'f', "", "FMT", "format of the source (default: found by its first bytes)"},
    {'O', "", "FMT", "format of the target (default: raw)"},
    {'o', "", "OPTIONS", "options of the target's format, a=b,c=d; '-o help' lists them"},
    {'B', "", "FILE", "the target's backing image; only what it lacks is copied"},
    {'b', "", "FILE", "the same as -B"},
    {'F', "", "FMT", "format of the backing image"},
    {'n', "", "", "the target exists: do not make it anew"},
    {0, "target-is-zero", "", "with -n: the target reads as zeros, so zeros need no writing"},
    {'c', "", "", "compress the target's clusters (qcow2), on all cores"},
    kProgressFlag,
    kProgressOption,
    kQuietOption,
    {'S', "", "SIZE", "leave out zeros of so many bytes at a time (default 4k; 0: write all)"},
    {'t', "", "CACHE", "cache mode of the target (default: unsafe)"},
    {'T', "", "CACHE", "cache mode of the source (default: writeback)"},
    {'m', "", "N", "at most N requests in flight (default: 8 a core)"},
    {'W', "", "", "write in any order (accepted; it is the default here)"},
    {'U', "force-share", "", "do not insist on the source's lock"},
    {0, "image-opts", "", "sources are descriptions: driver=qcow2,file.filename=x"},
    {0, "target-image-opts", "", "so is the target (needs -n)"},
    {'C', "", "", "try copy offloading (accepted; bytes go through this program)"},
    kSnapshotOption,
    kRateOption,
    {0, "bitmaps", "", "copy the source's persistent bitmaps, too"},
    {0, "skip-broken-bitmaps", "", "with --bitmaps: but for those that are inconsistent"},
    {0, "salvage", "", "read past errors: what cannot be read becomes zeros, and is listed"},
}};

// As qemu-img has them.
Result<void> refuse_contradictions(const Arguments& arguments, Diagnostics& diagnostics) {
  if (!arguments.has("C")) return {};
  for (std::string_view key : {"c", "S", "salvage"}) {
    if (!arguments.has(key)) continue;
    return usage_error(diagnostics, "-C goes without " + std::string(key.size() == 1 ? "-" : "--") +
                                        std::string(key));
  }
  return {};
}

Result<uint64_t> sparse_argument(const Arguments& arguments, Diagnostics& diagnostics) {
  ASSIGN_OR_RETURN(uint64_t bytes,
                   size_argument(arguments, "S", 4096, 0, kSparseBytesMax, diagnostics));
  if (bytes % kSectorBytes != 0) {
    return usage_error(diagnostics, "-S is a multiple of 512, up to 16M, or 0 to write all");
  }
  return bytes == 0 ? 0 : std::bit_floor(bytes);
}

Result<void> read_names(const Arguments& arguments, ConvertRequest& request,
                        Diagnostics& diagnostics) {
  const std::vector<std::string>& names = arguments.names();
  if (names.size() < 2) {
    return usage_error(diagnostics, "expecting the name of a source and of a target");
  }
  const std::optional<std::string> snapshot = arguments.value(kSnapshotOption.key());
  if (snapshot && snapshot->empty()) {
    return usage_error(diagnostics,
                       "-l needs a snapshot's id or name; one without a name is -l snapshot.name=");
  }
  for (size_t i = 0; i + 1 < names.size(); ++i) {
    ASSIGN_OR_RETURN(ImageName source, source_argument(arguments, names[i], diagnostics));
    source.snapshot = snapshot.value_or("");
    request.sources.push_back(std::move(source));
  }
  const bool is_description = arguments.has("target-image-opts");
  if (is_description && !request.keeps_target) {
    return usage_error(diagnostics, "--target-image-opts needs -n");
  }
  std::optional<std::string> format = arguments.value("O");
  if (!format && !is_description) format = "raw";
  ASSIGN_OR_RETURN(request.target,
                   parse_image_name(names.back(), format, is_description, diagnostics));
  return {};
}

Result<void> read_target(Program& program, const Arguments& arguments, ConvertRequest& request) {
  Diagnostics& diagnostics = program.diagnostics();
  NewImage& target = request.new_target;
  target.filename = request.target.filename;
  const bool has_backing = arguments.has("B") || arguments.has("b");
  ASSIGN_OR_RETURN(target.options,
                   new_image_options(arguments.values("o"), target.filename, diagnostics));
  ASSIGN_OR_RETURN(request.compression, read_compression(arguments, target.options, diagnostics));
  if (request.keeps_target) {
    take_compression_level(target.options);
    if (!target.options.empty()) {
      return usage_error(diagnostics, "-n goes with no -o but compression_level");
    }
    if (has_backing) return usage_error(diagnostics, "-B and -n exclude each other");
    return {};
  }
  if (request.target_is_zero) return usage_error(diagnostics, "--target-is-zero needs -n");
  ASSIGN_OR_RETURN(target.admin, program.find_admin(arguments.value("O").value_or("raw")));
  if (!target.admin->has_disk(target.options)) {
    return usage_error(diagnostics,
                       target.filename +
                           ": detached-header=on makes a header without a disk; make it with "
                           "'create', then convert with -n --target-image-opts to driver=luks,"
                           "header.filename=HEADER,file.filename=DISK");
  }
  RETURN_IF_ERROR(check_compression(request.compression, target, diagnostics));
  return take_backing(arguments, arguments.has("b") ? "b" : "B", target, diagnostics);
}

}  // namespace

std::span<const OptionSpec> convert_options() { return kOptions; }

Result<ConvertRequest> read_convert_request(Program& program, const Arguments& arguments) {
  Diagnostics& diagnostics = program.diagnostics();
  ConvertRequest request;
  RETURN_IF_ERROR(refuse_contradictions(arguments, diagnostics));
  request.keeps_target = arguments.has("n");
  request.target_is_zero = arguments.has("target-is-zero");
  request.bitmaps = arguments.has("bitmaps");
  request.skip_broken_bitmaps = arguments.has("skip-broken-bitmaps");
  if (request.skip_broken_bitmaps && !request.bitmaps) {
    return usage_error(diagnostics, "Use of --skip-broken-bitmaps requires --bitmaps");
  }
  if (request.bitmaps && arguments.has(kSnapshotOption.key())) {
    return usage_error(diagnostics,
                       "-l and --bitmaps exclude each other: bitmaps are those of "
                       "the disk, not of a snapshot");
  }
  request.salvage = arguments.has("salvage");
  request.is_quiet = arguments.has("q");
  ASSIGN_OR_RETURN(request.bytes_per_second, rate_argument(arguments, diagnostics));
  request.share = arguments.has("force-share");
  ASSIGN_OR_RETURN(request.source_cache,
                   cache_argument(arguments, "T", CacheMode::kWriteback, diagnostics));
  ASSIGN_OR_RETURN(request.target_cache,
                   cache_argument(arguments, "t", CacheMode::kUnsafe, diagnostics));
  ASSIGN_OR_RETURN(request.sparse_bytes, sparse_argument(arguments, diagnostics));
  ASSIGN_OR_RETURN(uint64_t requests,
                   size_argument(arguments, "m", 0, 1, kRequestsMax, diagnostics));
  request.requests_in_flight = static_cast<uint32_t>(requests);
  RETURN_IF_ERROR(read_names(arguments, request, diagnostics));
  RETURN_IF_ERROR(read_target(program, arguments, request));
  ASSIGN_OR_RETURN(request.progress, progress_options(program, arguments, "convert"));
  return request;
}

}  // namespace ringdisk
