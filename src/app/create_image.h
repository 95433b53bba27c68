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
  bool backing_is_trusted = false;  // -u: nobody looks at it
};

// All -o of a command line as one. Errors name the image.
Result<Options> new_image_options(const std::vector<std::string>& words,
                                  const std::string& filename, Diagnostics& diagnostics);
// `error`, about the image `filename` unless it says of whom it speaks.
Error about_image(Diagnostics& diagnostics, const Error& error, const std::string& filename);

// Moves what -b (or -B, as `key` says) and -F, or backing_file= and backing_fmt= of the options,
// say into `image`. A backing file without a format is refused.
Result<void> take_backing(const Arguments& arguments, std::string_view key, NewImage& image,
                          Diagnostics& diagnostics);

// Refuses what is no image format's name, which an image would record and nobody could open; errors
// name the image `filename`.
Result<void> check_backing_format(const std::string& format, const std::string& filename,
                                  Diagnostics& diagnostics);

// Refuses an image that would lie in its own backing chain, which is followed as far as it could be
// opened; with backing_is_trusted its first image alone is looked at.
Task<void> refuse_loop(Program& program, const NewImage& image);

// The virtual size of the backing image; an error where it cannot be used.
Task<ByteCount> backing_size(Program& program, const NewImage& image);

// Prints what "-o help" asks for, about the format that option `format_key` names; false: it was
// not asked for.
Result<bool> print_option_help(Program& program, const Arguments& arguments,
                               std::string_view format_key);

// As above, whether it was asked for; `options` are the format's own.
Result<bool> asks_for_option_help(const Arguments& arguments, Diagnostics& diagnostics);
void print_option_help(Program& program,
                       const std::vector<std::pair<std::string, std::string>>& options);

// "Formatting 'x', fmt=qcow2 …", as qemu-img create says it.
std::string formatting_line(const NewImage& image);

// Makes it, in place of what was there, unless that is in its own backing chain. On an error
// nothing is left that was not there before, and the error names the image.
Task<void> create_image(Program& program, const NewImage& image);

// Removes `filename`, which was to become a file and holds nothing of use, if it is a regular one.
// That it cannot be removed is said in a line of its own: why it is of no use is the error to give.
Task<void> remove_leftover(Program& program, std::string filename);

}  // namespace ringdisk
