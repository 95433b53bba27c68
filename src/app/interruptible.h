// SPDX-License-Identifier: Apache-2.0
// Storages that stop on demand: how a stop signal ends a command that has no job to cancel (map,
// info, create). From the moment a flag is set every further request to a storage fails with
// kCancelled, and the command ends by the path it has for any failure: it closes what it opened and
// removes what it made.
//
// Costs one coroutine frame a request, and now and then a turn for the rest of the shard: a map
// whose tables are all in the page cache would otherwise never let the signal be read. So jobs that
// move data (convert, serve, bench) do not use it.
#pragma once

#include <atomic>

#include "block/graph.h"

namespace ringdisk {

// `drivers`, whose storages obey `stopped`. Both outlive the result and what is opened with it.
Drivers interruptible_drivers(const Drivers& drivers, const std::atomic<bool>& stopped);

}  // namespace ringdisk
