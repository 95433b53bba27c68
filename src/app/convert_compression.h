// SPDX-License-Identifier: Apache-2.0
// What -c and -o compression_level=N of `convert` mean, and what they do not go with.
#pragma once

#include "app/create_image.h"
#include "app/program.h"

namespace ringdisk {

struct CompressionRequest {
  bool wanted = false;  // -c
  uint32_t level = 0;   // 0: the format's default
};

// From the command line; the new image's options stay as they are, so that its format looks at the
// level, too.
Result<CompressionRequest> read_compression(const Arguments& arguments, const Options& options,
                                            Diagnostics& diagnostics);

// -c of a new image whose format has no compressed clusters, or of one that is preallocated.
Result<void> check_compression(const CompressionRequest& compression, const NewImage& image,
                               Diagnostics& diagnostics);
// The same of an image that is there, once it is open.
Result<void> check_compression(const CompressionRequest& compression, const DeviceNode& target,
                               Diagnostics& diagnostics);

// Takes out of the options of an image that exists what may stand there.
void take_compression_level(Options& options);

}  // namespace ringdisk
