// SPDX-License-Identifier: Apache-2.0
// Options that several commands take, so that they are called and described alike everywhere. The
// tables of the commands name them:
//
//   constexpr std::array<OptionSpec, 2> kOptions = {{kImageFormatOption, kQuietOption}};
#pragma once

#include "app/command_line.h"

namespace ringdisk {

inline constexpr OptionSpec kImageFormatOption = {
    'f', "", "FMT", "format of the image (default: found by its first bytes)"};
inline constexpr OptionSpec kImageOptsOption = {
    0, "image-opts", "", "FILE is a description: driver=qcow2,file.filename=x"};
inline constexpr OptionSpec kForceShareOption = {
    'U', "force-share", "", "do not insist on locks: another program may write to it"};
inline constexpr OptionSpec kSnapshotOption = {
    'l', "snapshot", "SNAPSHOT", "not the disk but an internal snapshot of it, by id or name"};
inline constexpr OptionSpec kOutputOption = {0, "output", "FORM", "human (default) or json"};
inline constexpr OptionSpec kQuietOption = {'q', "", "", "print nothing but errors"};
inline constexpr OptionSpec kProgressFlag = {'p', "", "", "show progress"};
inline constexpr OptionSpec kProgressOption = {0, "progress", "FORM",
                                               "progress as bar, json (one object a line) or none"};

inline constexpr OptionSpec kRateOption = {'r', "", "RATE",
                                           "copy at most RATE bytes of content a second"};

}  // namespace ringdisk
