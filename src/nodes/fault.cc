// SPDX-License-Identifier: Apache-2.0
// The plan's counting, the queue of `fault`, and its options.
#include "nodes/fault.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <string_view>

#include "base/diagnostics.h"
#include "nodes/filter_child.h"

namespace ringdisk {
namespace {

class FaultQueue final : public HookedQueue {
 public:
  FaultQueue(std::unique_ptr<StorageQueue> child, FaultPlan& plan, uint32_t node)
      : HookedQueue(std::move(child)), plan_(plan), node_(node) {}

 private:
  Task<int> before(StorageOperation operation, HostRange range) override {
    FaultPlan::Fate fate = plan_.begin(operation, range);
    if (fate.errno_before != 0) co_return failure(operation, range, fate.errno_before);
    co_return fate.errno_after;
  }
  Task<void> after(StorageOperation operation, HostRange range, int errno_after) override {
    if (errno_after != 0) co_await fail(failure(operation, range, errno_after));
  }
  Error failure(StorageOperation operation, HostRange range, int errno_value) const {
    // The names are literals.
    const char* name = name_of(operation).data();
    return at_node(Error::from_errno(errno_value, name, range.offset.value()), node_);
  }

  FaultPlan& plan_;
  const uint32_t node_;
};

// The errors that disks, file systems and networks really give.
struct NamedErrno {
  std::string_view name;
  int value;
};
constexpr std::array kErrnos = {
    NamedErrno{"EIO", EIO},     NamedErrno{"ENOSPC", ENOSPC}, NamedErrno{"EDQUOT", EDQUOT},
    NamedErrno{"EPERM", EPERM}, NamedErrno{"ENOMEM", ENOMEM}, NamedErrno{"ETIMEDOUT", ETIMEDOUT},
    NamedErrno{"EROFS", EROFS}, NamedErrno{"ENODEV", ENODEV}, NamedErrno{"ENOTSUP", ENOTSUP},
    NamedErrno{"EFBIG", EFBIG},
};

Result<int> take_errno(Options& options, Diagnostics& diagnostics) {
  const std::string text = options.take("errno").value_or("EIO");
  for (const NamedErrno& known : kErrnos) {
    if (known.name == text) return known.value;
  }
  int value = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  constexpr int kErrnoMax = 4095;  // what the kernel can give
  if (error == std::errc() && end == text.data() + text.size() && value > 0 && value <= kErrnoMax) {
    return value;
  }
  return diagnostics.explain(Error::of(ErrorKind::kInvalid, "open"),
                             "errno is a number or a name such as EIO or ENOSPC");
}

Task<std::unique_ptr<StorageNode>> open_fault(const World& world, const Drivers& drivers,
                                              Options options, OpenMode mode) {
  Diagnostics& diagnostics = world.diagnostics;
  FaultRule rule;
  rule.operations = co_await take_operations(options, diagnostics);
  rule.after = co_await take_is_after(options, diagnostics);
  rule.number = co_await options.take_size("number", 0, diagnostics);
  rule.count = co_await options.take_size("count", 1, diagnostics);
  rule.errno_value = co_await take_errno(options, diagnostics);
  auto plan = std::make_shared<FaultPlan>();
  plan->add(rule);
  std::unique_ptr<SharedStorage> child =
      co_await open_filter_child(world, drivers, "fault", options, mode);
  std::unique_ptr<StorageNode> node =
      std::make_unique<FaultNode>(std::move(child), std::move(plan));
  co_return std::move(node);
}

bool touches(const FaultRule& rule, StorageOperation operation, HostRange range) {
  if (!rule.operations.has(operation)) return false;
  return range.empty() || rule.range.overlaps(range);
}

}  // namespace

void FaultPlan::clear() {
  rules_.clear();
  operations_ = 0;
  failures_ = 0;
}

void FaultPlan::fail_nth(uint64_t n, int errno_value, bool after) {
  clear();
  FaultRule rule;
  rule.number = n;
  rule.errno_value = errno_value;
  rule.after = after;
  add(rule);
}

void FaultPlan::add(const FaultRule& rule) {
  CHECK_GT(rule.errno_value, 0);
  Counted counted;
  counted.rule = rule;
  rules_.push_back(std::move(counted));
}

FaultPlan::Fate FaultPlan::begin(StorageOperation operation, HostRange range) {
  operations_.fetch_add(1, std::memory_order_relaxed);
  Fate fate;
  for (Counted& counted : rules_) {
    const FaultRule& rule = counted.rule;
    if (!touches(rule, operation, range)) continue;
    const uint64_t seen = counted.seen->fetch_add(1, std::memory_order_relaxed);
    if (seen < rule.number || seen - rule.number >= rule.count) continue;
    (rule.after ? fate.errno_after : fate.errno_before) = rule.errno_value;
  }
  if (fate.errno_before != 0 || fate.errno_after != 0) {
    failures_.fetch_add(1, std::memory_order_relaxed);
  }
  return fate;
}

Task<std::unique_ptr<StorageQueue>> FaultNode::open_queue(Shard& shard) {
  std::unique_ptr<StorageQueue> below = co_await child().open_queue(shard);
  std::unique_ptr<StorageQueue> queue =
      std::make_unique<FaultQueue>(std::move(below), *plan_, id());
  co_return std::move(queue);
}

StorageDriver fault_driver(const Drivers& drivers) {
  StorageDriver driver;
  driver.name = "fault";
  driver.open = [&drivers](const World& world, Options options, OpenMode mode) {
    return open_fault(world, drivers, std::move(options), mode);
  };
  return driver;
}

}  // namespace ringdisk
