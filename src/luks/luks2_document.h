// SPDX-License-Identifier: Apache-2.0
// Changing the JSON of a LUKS2 header: what this program writes of key slots, digests and segments,
// leaving alone what it does not know. Pure.
#pragma once

#include "luks/facts.h"
#include "luks/json.h"
#include "luks/luks2_metadata.h"

namespace ringdisk::luks {

// A volume without key slots: one segment, one digest.
Json new_luks2_document(const VolumeFacts& facts, uint64_t header_bytes, uint64_t slot_area_bytes);

// Adds the slot, or puts it in the place of the one with its number, for digest `digest`.
void put_key_slot(Json& json, const KeySlot& slot, uint32_t digest);

// The slot is there. As cryptsetup has it, the usual priority is not written down.
void set_slot_priority(Json& json, uint32_t number, uint32_t priority);

// Takes the slot away, and out of every list that names it; a digest that was of its key alone goes
// with it.
void remove_key_slot(Json& json, uint32_t number);

// The first gap between the areas of all slots that has `bytes`; nullopt: there is none.
std::optional<HostOffset> find_free_area(const Luks2Metadata& metadata, uint64_t header_bytes,
                                         uint64_t bytes);

}  // namespace ringdisk::luks
