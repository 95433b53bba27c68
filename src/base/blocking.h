// SPDX-License-Identifier: Apache-2.0
// Blocking: the permission to block the calling thread. A function that may sleep in the kernel
// (open, fstat on a network file system, lock, getaddrinfo) takes one, so that it shows in the
// signature and in every caller. main() has one while no shard runs, and the blocking pool
// (runtime/blocking_pool.h) gives one to what it runs. A shard never has one.
#pragma once

namespace ringdisk {

class Blocking {
 public:
  // Only main(), the blocking pool and tests make one.
  static Blocking allowed_here() { return Blocking(); }

 private:
  Blocking() = default;
};

}  // namespace ringdisk
