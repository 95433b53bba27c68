// SPDX-License-Identifier: Apache-2.0
// Key slots changed in qemu-img's words: `amend -o state=active,new-secret=sec1` adds a passphrase,
// `-o state=inactive,old-secret=sec0` takes away those slots that one opens, `,keyslot=N` says
// which slot. The same for LUKS images and LUKS inside qcow2.
#pragma once

#include "block/graph.h"
#include "luks/create_options.h"
#include "luks/header_window.h"

namespace ringdisk::luks {

// Besides what amend_option_lines() lists, which users give with -o, what `--force` stands for: a
// slot in use may be replaced, and the last one removed. kForceAmendment of block/format_admin.h.
OptionLines amend_option_lines();

// `image`: as the user calls it. `options` besides those above: key-secret=ID, what opens the
// volume when a slot is added. kInvalid names what is missing; kDenied: the last slot would go.
Task<void> amend_volume(Graph& graph, HeaderWindow window, std::string image, KdfLimits limits,
                        Options options);

}  // namespace ringdisk::luks
