// SPDX-License-Identifier: Apache-2.0
// Closing what was worked on, whatever became of the work:
//
//   Result<void> done = co_await work(*storage).result();
//   co_await close_after(std::move(done), *storage->node);
//
// Costs a frame; for whole commands and edits, not for requests.
#pragma once

#include <type_traits>
#include <utility>

#include "async/task.h"

namespace ringdisk {

// Closes `closed` (a storage, an image, a disk); gives what was `done`, or the first error.
template <class T, class Closeable>
Task<T> close_after(Result<T> done, Closeable& closed) {
  Result<void> outcome = co_await closed.close().result();
  if constexpr (std::is_void_v<T>) {
    co_await std::move(done);
    co_await std::move(outcome);
  } else {
    if (done.ok() && !outcome.ok()) co_return outcome.error();
    co_return std::move(done);
  }
}

}  // namespace ringdisk
