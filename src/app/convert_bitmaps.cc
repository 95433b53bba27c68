// SPDX-License-Identifier: Apache-2.0
// Bitmaps are read while the source is open, and added to the target by one edit when its content
// is there. Wording of errors is qemu-img's.
#include "app/convert_bitmaps.h"

#include <algorithm>

#include "base/diagnostics.h"
#include "base/log.h"

namespace ringdisk {
namespace {

Task<std::vector<BitmapDescription>> list_bitmaps(Program& program, DeviceNode& device) {
  Result<std::vector<BitmapDescription>> listed = co_await device.format().bitmaps().result();
  if (!listed.ok() && listed.error().kind == ErrorKind::kUnsupported) {
    co_return program.diagnostics().explain(
        listed.error(), device.id(),
        "Format driver '" + std::string(device.format().driver()) + "' does not support bitmaps");
  }
  co_return std::move(listed);
}

// Whether it is to be copied.
Result<bool> admit(Program& program, const ConvertRequest& request, const DeviceNode& source,
                   const BitmapDescription& bitmap) {
  if (bitmap.is_usable) return true;
  if (request.skip_broken_bitmaps) {
    program.world.log.warning(source.name() + ": Skipping inconsistent bitmap '" + bitmap.name +
                              "'");
    return false;
  }
  return program.diagnostics().explain(
      Error::of(ErrorKind::kCorrupt, "copy bitmaps"), source.id(),
      "Cannot copy inconsistent bitmap '" + bitmap.name +
          "'; skip it with --skip-broken-bitmaps, or take it out of the image with 'ringdisk "
          "bitmap --remove'");
}

Task<void> add_edits(DeviceNode& source, const BitmapDescription& bitmap,
                     std::vector<BitmapEdit>& edits) {
  BitmapEdit edit;
  edit.bitmap = bitmap.name;
  edit.granularity = bitmap.granularity;
  edits.push_back(edit);
  edit.action = BitmapEdit::Action::kMerge;
  edit.source = bitmap.name;
  edit.source_bits = co_await source.format().find_bitmap(bitmap.name);
  edits.push_back(edit);
  if (bitmap.is_enabled) co_return;
  edit.action = BitmapEdit::Action::kDisable;
  edits.push_back(std::move(edit));
}

}  // namespace

Task<std::vector<BitmapEdit>> read_source_bitmaps(Program& program, const ConvertRequest& request,
                                                  const Devices& sources) {
  std::vector<BitmapEdit> edits;
  if (!request.bitmaps) co_return std::move(edits);
  if (sources.size() != 1) {
    co_return usage_error(program.diagnostics(),
                          "Copying bitmaps only possible with single source");
  }
  DeviceNode& source = *sources.front();
  const std::vector<BitmapDescription> bitmaps = co_await list_bitmaps(program, source);
  for (const BitmapDescription& bitmap : bitmaps) {
    const bool is_wanted = co_await admit(program, request, source, bitmap);
    if (is_wanted) co_await add_edits(source, bitmap, edits);
  }
  co_return std::move(edits);
}

Task<void> check_target_bitmaps(Program& program, const std::vector<BitmapEdit>& edits,
                                DeviceNode& target) {
  if (edits.empty()) co_return;
  const std::vector<BitmapDescription> there = co_await list_bitmaps(program, target);
  auto refuse = [&](std::string why) {
    return program.diagnostics().explain(Error::of(ErrorKind::kInvalid, "copy bitmaps"),
                                         target.id(), std::move(why));
  };
  for (const BitmapEdit& edit : edits) {
    auto has_name = [&edit](const BitmapDescription& one) { return one.name == edit.bitmap; };
    if (std::any_of(there.begin(), there.end(), has_name)) {
      co_await fail(refuse("Bitmap already exists: " + edit.bitmap));
    }
    if (!edit.source_bits || edit.source_bits->size() == target.size()) continue;
    co_await fail(refuse("bitmaps go only to a disk of the source's size, " +
                         std::to_string(edit.source_bits->size().value()) + " bytes"));
  }
}

Task<void> write_target_bitmaps(Program& program, const ConvertRequest& request,
                                std::vector<BitmapEdit> edits) {
  if (edits.empty()) co_return;
  OpenMode mode;
  mode.no_backing = true;
  ImageName name = request.target;
  if (!request.keeps_target) name.format = request.new_target.admin->name();
  ImageFile image = co_await open_image_file(program, std::move(name), mode);
  Graph graph = program.graph();
  co_await image.admin->edit_bitmaps(graph, std::move(image.storage), std::move(edits));
}

}  // namespace ringdisk
