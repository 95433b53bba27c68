// SPDX-License-Identifier: Apache-2.0
// Judged first, then one write of the header.
#include "luks/config.h"

#include "luks/format.h"
#include "luks/luks2_document.h"
#include "luks/slot_edit.h"

namespace ringdisk::luks {
namespace {

constexpr uint32_t kPriorityMax = 2;

Result<void> check_text(const std::optional<std::string>& text, const char* what,
                        const Refusal& refusal) {
  if (!text || text->size() <= kLabelBytesMax) return {};
  return refusal.invalid(std::string("a ") + what + " has at most " +
                         std::to_string(kLabelBytesMax) + " bytes");
}

Result<void> check_config(const HeaderConfig& config, const LuksHeader& header,
                          const Refusal& refusal) {
  const bool is_for_luks2 = config.label || config.subsystem || config.slot_priority;
  if (header.luks1 && is_for_luks2) {
    return refusal.unsupported(
        "LUKS1 has no labels, subsystems and priorities of key slots; LUKS2 has them");
  }
  RETURN_IF_ERROR(check_text(config.label, "label", refusal));
  RETURN_IF_ERROR(check_text(config.subsystem, "subsystem", refusal));
  if (config.uuid && !is_uuid(*config.uuid)) {
    return refusal.invalid("'" + *config.uuid + "' is no UUID, such as " + kExampleUuid);
  }
  if (!config.slot_priority) return {};
  CHECK_LE(*config.slot_priority, kPriorityMax);
  const std::string number = std::to_string(config.slot);
  if (header.luks2->json.find("keyslots")->find(number) != nullptr) return {};
  return refusal(ErrorKind::kNotFound, "key slot " + number + " is not in use");
}

void apply(const HeaderConfig& config, Luks2Header& header) {
  if (config.label) header.binary.label = *config.label;
  if (config.subsystem) header.binary.subsystem = *config.subsystem;
  if (config.uuid) header.binary.uuid = *config.uuid;
  if (config.slot_priority) set_slot_priority(header.json, config.slot, *config.slot_priority);
}

}  // namespace

Task<void> change_config(const World& world, HeaderWindow window, HeaderConfig config) {
  LuksHeader header = co_await read_header(world, window);
  co_await check_config(config, header, window.refusal(world));
  co_await ready_for_change(world, window, header);
  if (header.luks1) {
    if (config.uuid) header.luks1->uuid = *config.uuid;
    co_await write_luks1_header(world, window, *header.luks1);
    co_return;
  }
  apply(config, *header.luks2);
  co_await write_luks2_header(world, window, *header.luks2);
}

}  // namespace ringdisk::luks
