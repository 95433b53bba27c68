// SPDX-License-Identifier: Apache-2.0
// Inbox: what other threads want of a shard. Lock-free, many senders, one receiver. A message is a
// link in the sender's own coroutine frame (or job), so sending allocates nothing, and the inbox is
// bounded by what is in flight.
//
//   senders push on a stack (one compare-and-swap); the shard takes the whole stack at once and
//   turns it round.
#pragma once

#include <atomic>

namespace ringdisk {

class Message {
 public:
  // Runs on the receiving shard.
  virtual void deliver() = 0;

 protected:
  Message() = default;
  ~Message() = default;

 private:
  friend class Inbox;
  Message* next_ = nullptr;
};

class Inbox {
 public:
  // Any thread. The message belongs to the inbox until deliver() is called.
  void push(Message& message) {
    Message* top = top_.load(std::memory_order_relaxed);
    do {
      message.next_ = top;
    } while (!top_.compare_exchange_weak(top, &message, std::memory_order_seq_cst,
                                         std::memory_order_relaxed));
  }
  // The receiver only. Sequentially consistent with push: see Shard's sleep.
  bool is_empty() const { return top_.load(std::memory_order_seq_cst) == nullptr; }
  // The receiver only: delivers everything that had been pushed, oldest first; gives how many.
  unsigned deliver_all() {
    if (top_.load(std::memory_order_relaxed) == nullptr) return 0;
    Message* stack = top_.exchange(nullptr, std::memory_order_acquire);
    Message* oldest = nullptr;
    while (stack) {
      Message* next = stack->next_;
      stack->next_ = oldest;
      oldest = stack;
      stack = next;
    }
    unsigned count = 0;
    for (; oldest; ++count) {
      Message* message = oldest;
      oldest = message->next_;  // read first: deliver() may end the message's life
      message->deliver();
    }
    return count;
  }

 private:
  std::atomic<Message*> top_{nullptr};
};

}  // namespace ringdisk
