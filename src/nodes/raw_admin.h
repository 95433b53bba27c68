// SPDX-License-Identifier: Apache-2.0
// RawAdmin: creating and describing raw images, which are nothing but their bytes: a size, and
// whether its space is taken at once. There is nothing to check in one.
#pragma once

#include "block/format_admin.h"

namespace ringdisk {

// Any shard; holds nothing.
class RawAdmin final : public FormatAdmin {
 public:
  std::string_view name() const override { return "raw"; }
  std::vector<std::pair<std::string, std::string>> create_options() const override;
  // The size is rounded up to 512 bytes. preallocation=falloc takes the space without writing, full
  // writes zeros.
  Task<void> create(Graph& graph, CreateRequest request) override;
  Task<MeasureReport> measure(const World& world, MeasureRequest request) override;
  Task<void> check_new_size(const World& world, SharedStorage& storage, ByteCount size) override;
  Task<void> resize(Graph& graph, std::unique_ptr<SharedStorage> storage, ByteCount size) override;
  Task<ImageDescription> describe(const World& world, SharedStorage& storage) override;
  Task<std::optional<CheckReport>> check(const World& world, SharedStorage& storage,
                                         CheckOptions options, CancelToken cancel,
                                         std::function<void(CheckProgress)> on_progress) override;
};

}  // namespace ringdisk
