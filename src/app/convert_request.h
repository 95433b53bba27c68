// SPDX-License-Identifier: Apache-2.0
// What `convert` is asked to do, read from its command line and checked as far as that alone can
// be.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "app/convert_compression.h"
#include "app/create_image.h"
#include "app/program.h"
#include "control/progress.h"

namespace ringdisk {

struct ConvertRequest {
  std::vector<ImageName> sources;
  ImageName target;
  bool keeps_target = false;  // -n: it exists
  NewImage new_target;        // unless keeps_target
  bool target_is_zero = false;
  CompressionRequest compression;
  bool bitmaps = false;  // they go with the content
  bool skip_broken_bitmaps = false;
  bool is_quiet = false;
  bool salvage = false;           // read past errors
  uint64_t bytes_per_second = 0;  // 0: as fast as it goes
  bool share = false;
  CacheMode source_cache = CacheMode::kWriteback;
  CacheMode target_cache = CacheMode::kUnsafe;
  uint64_t sparse_bytes = 4096;  // 0 or a power of two from 512 on
  uint32_t requests_in_flight = 0;
  ProgressOptions progress;
};

std::span<const OptionSpec> convert_options();
Result<ConvertRequest> read_convert_request(Program& program, const Arguments& arguments);

}  // namespace ringdisk
