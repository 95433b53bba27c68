// SPDX-License-Identifier: Apache-2.0
// Closing what was worked on, whatever became of the work:
//
//   Result<void> done = co_await work(*storage).result();
//   co_await close_after(std::move(done), *storage->node);
//
// Costs a frame; for whole commands and edits, not for requests.
#pragma once

#include <utility>

#include "async/task.h"

namespace ringdisk {

// Closes `closed` (a storage, an image, a disk); the first error wins.
template <class Closeable>
Task<void> close_after(Result<void> done, Closeable& closed) {
  Result<void> outcome = co_await closed.close().result();
  co_await std::move(done);
  co_await std::move(outcome);
}

}  // namespace ringdisk
