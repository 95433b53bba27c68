// SPDX-License-Identifier: Apache-2.0
// Mutex among coroutines of one shard: a Semaphore of one unit.
//
//   MutexLock lock = co_await mutex.lock();
#pragma once

#include "async/semaphore.h"  // Mutex, MutexLock
