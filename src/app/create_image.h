// SPDX-License-Identifier: Apache-2.0
// Making a new image, for `create` and for the target of `convert`.
#pragma once

#include <string>
#include <vector>

#include "app/program.h"

namespace ringdisk {

struct NewImage {
  std::string filename;
  FormatAdmin* admin = nullptr;
  ByteCount size;
  Options options;  // of the format
  std::string backing_name, backing_format;
};

// All -o of a command line as one.
Result<Options> new_image_options(const std::vector<std::string>& words, Diagnostics& diagnostics);

// Moves what -b (or -B, as `key` says) and -F, or backing_file= and backing_fmt= of the options,
// say into `image`. A backing file without a format is refused.
Result<void> take_backing(const Arguments& arguments, std::string_view key, NewImage& image,
                          Diagnostics& diagnostics);

// The virtual size of the backing image; an error where it cannot be used.
Task<ByteCount> backing_size(Program& program, const NewImage& image);

// Whether "-o help" was asked for, and the answer.
bool wants_option_help(const std::vector<std::string>& words);
std::string option_help(const FormatAdmin& admin);

// "Formatting 'x', fmt=qcow2 …", as qemu-img create says it.
std::string formatting_line(const NewImage& image);

// Makes it, in place of what was there. On an error nothing is left that was not there before.
Task<void> create_image(Program& program, const NewImage& image);

// Removes `filename` if it is a regular file, on a thread that may block.
Task<void> remove_file(Program& program, const std::string& filename);

}  // namespace ringdisk
