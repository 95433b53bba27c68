// SPDX-License-Identifier: Apache-2.0
// The table of magic bytes, from the formats' public specifications and from what file(1) knows.
#include "nodes/format_magic.h"

#include <algorithm>
#include <array>

namespace ringdisk {
namespace {

using std::string_view_literals::operator""sv;

struct Magic {
  std::string_view format;
  size_t offset;
  std::string_view bytes;
};

constexpr std::array kMagics = {
    Magic{"qcow2", 0, "QFI\xfb"sv},  // all versions
    Magic{"qed", 0, "QED\0"sv},
    Magic{"luks", 0, "LUKS\xba\xbe"sv},  // versions 1 and 2
    Magic{"vmdk", 0, "KDMV"sv},
    Magic{"vmdk", 0, "COWD"sv},
    Magic{"vmdk", 0, "# Disk DescriptorFile"sv},
    Magic{"vdi", 64, "\x7f\x10\xda\xbe"sv},
    Magic{"vhdx", 0, "vhdxfile"sv},
    Magic{"vpc", 0, "conectix"sv},
    Magic{"parallels", 0, "WithoutFreeSpace"sv},
    Magic{"parallels", 0, "WithouFreSpacExt"sv},
    Magic{"bochs", 0, "Bochs Virtual HD Image"sv},
    Magic{"cloop", 0, "#!/bin/sh\n#V2.0 Format\n"sv},
};

// A VMDK descriptor is text and may begin with comments and empty lines.
bool is_vmdk_text(std::string_view text) {
  constexpr std::string_view kVersion = "version="sv;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    const std::string_view line = text.substr(0, end);
    const size_t first = line.find_first_not_of(" \r");
    if (first != std::string_view::npos && line[first] != '#') return line.starts_with(kVersion);
    if (end == std::string_view::npos) return false;
    text.remove_prefix(end + 1);
  }
  return false;
}

}  // namespace

std::string_view announced_format(Bytes first) {
  const std::string_view text = as_text(first.first(std::min(first.size(), kFormatMagicBytes)));
  for (const Magic& magic : kMagics) {
    if (text.size() < magic.offset + magic.bytes.size()) continue;
    if (text.substr(magic.offset, magic.bytes.size()) == magic.bytes) return magic.format;
  }
  return is_vmdk_text(text) ? "vmdk"sv : ""sv;
}

}  // namespace ringdisk
