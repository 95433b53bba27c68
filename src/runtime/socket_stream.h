// SPDX-License-Identifier: Apache-2.0
// SocketStream: a Stream over a connected, non-blocking socket. And the file descriptor that closes
// itself.
#pragma once

#include <memory>
#include <utility>

#include "runtime/file_descriptor.h"
#include "runtime/loop.h"
#include "runtime/network.h"

namespace ringdisk {

// `socket` is connected and non-blocking.
std::unique_ptr<Stream> make_socket_stream(FileDescriptor socket, Shard& shard);

// Waits on `shard`'s loop until `fd` is ready, failed or `token` is cancelled (then kCancelled).
Task<void> wait_until_ready(Shard& shard, int fd, IoOpcode in_or_out, CancelToken token);

}  // namespace ringdisk
