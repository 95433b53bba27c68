// SPDX-License-Identifier: Apache-2.0
// IntrusiveList: a doubly linked list whose links live in its elements, so that queueing allocates
// nothing. An element is in at most one list and leaves it by itself when it is destroyed. One
// shard only: no locks, no atomics.
//
//   head_ <-> a <-> b <-> c <-> head_      (a ring through the list's own link)
#pragma once

#include "base/check.h"

namespace ringdisk {

class ListLink {
 public:
  ListLink() = default;
  ListLink(const ListLink&) = delete;
  ListLink& operator=(const ListLink&) = delete;
  ~ListLink() { unlink(); }

  bool is_linked() const { return next_ != nullptr; }
  void unlink() {
    if (!next_) return;
    next_->previous_ = previous_;
    previous_->next_ = next_;
    next_ = previous_ = nullptr;
  }

 private:
  template <class T>
  friend class IntrusiveList;
  ListLink* next_ = nullptr;
  ListLink* previous_ = nullptr;
};

// T derives from ListLink.
template <class T>
class IntrusiveList {
 public:
  IntrusiveList() { head_.next_ = head_.previous_ = &head_; }
  IntrusiveList(const IntrusiveList&) = delete;
  IntrusiveList& operator=(const IntrusiveList&) = delete;
  ~IntrusiveList() {
    while (!empty()) pop_front();
    head_.next_ = head_.previous_ = nullptr;
  }

  bool empty() const { return head_.next_ == &head_; }
  T& front() {
    CHECK(!empty());
    return *static_cast<T*>(head_.next_);
  }
  void push_back(T& element) {
    ListLink& link = element;
    CHECK(!link.is_linked());
    link.previous_ = head_.previous_;
    link.next_ = &head_;
    head_.previous_->next_ = &link;
    head_.previous_ = &link;
  }
  T& pop_front() {
    T& element = front();
    static_cast<ListLink&>(element).unlink();
    return element;
  }

  // Walks from the front; `element` may unlink itself inside `visit`. Stops when `visit` returns
  // false.
  template <class Visit>
  void for_each(Visit visit) {
    for (ListLink* link = head_.next_; link != &head_;) {
      ListLink* next = link->next_;
      if (!visit(*static_cast<T*>(link))) return;
      link = next;
    }
  }

 private:
  ListLink head_;
};

}  // namespace ringdisk
