// SPDX-License-Identifier: Apache-2.0
// What QEMU lets every node of a description say, whatever its driver, about how it is opened:
// node-name, read-only, auto-read-only, force-share, cache.direct, cache.no-flush. Machines' whole
// descriptions are written so (`virsh`, libvirt's logs). Here storages are opened so; a format's
// words are its storage's, unless that has its own.
#pragma once

#include "base/result.h"
#include "block/options.h"

namespace ringdisk {

class Diagnostics;
struct OpenMode;

// From a format's options to those of its storage. The node's name goes: nothing here refers to it.
void move_node_words(Options& format, Options& storage);

// Takes all but the words of the cache, which are the driver's. What is read-only cannot be opened
// for writing, and is refused (kDenied) where that is wanted; that others may write to it
// (force-share) becomes `mode`'s. That it may be opened for reading when it cannot be for writing
// (auto-read-only) says nothing here: commands know which of both they need.
Result<void> take_node_words(Options& storage, OpenMode& mode, Diagnostics& diagnostics);

}  // namespace ringdisk
