// SPDX-License-Identifier: Apache-2.0
// The steps, one after the other. The image is opened for writing first, so that a damaged one is
// refused and an unclean one repaired before anything is judged.
#include "qcow2/edit/amend.h"

#include <algorithm>

#include "base/diagnostics.h"
#include "block/close_after.h"
#include "block/data_encryption.h"
#include "qcow2/describe.h"
#include "qcow2/edit/data_file_name.h"
#include "qcow2/edit/edit.h"
#include "qcow2/edit/refcount_width.h"
#include "qcow2/edit/snapshot_editor.h"
#include "qcow2/edit/zero_expansion.h"

namespace ringdisk::qcow2 {
namespace {

// Amends one image; lives in the frame of amend_image.
class Amender {
 public:
  Amender(Graph& graph, AmendRequest& request, const Amendment& amendment,
          const DataEncryption* encryption)
      : graph_(graph), request_(request), amendment_(amendment), encryption_(encryption) {}

  Task<void> run();

 private:
  Task<void> edit(const ImageEdit& edit);
  Task<void> edit_header(const HeaderChange& change);
  Task<void> upgrade();
  Task<void> change_width();
  Task<void> change_laziness();
  Task<void> change_data_file_alone();
  Task<void> end_raw_data_file();
  Task<void> downgrade();
  Task<void> change_encryption();

  Graph& graph_;
  AmendRequest& request_;
  const Amendment& amendment_;
  const DataEncryption* const encryption_;
  Header header_;  // as it was before the first step
};

Task<void> Amender::edit(const ImageEdit& edit) {
  std::unique_ptr<SharedStorage> storage = co_await request_.open();
  co_await edit_image(graph_, std::move(storage), edit);
}

Task<void> rewrite_on_home(HomeParts parts, const HeaderChange& change) {
  TableEditor tables(parts);
  co_await tables.rewrite_header(change);
}

Task<void> Amender::edit_header(const HeaderChange& change) {
  const ImageEdit rewrite = [&change](HomeParts parts) { return rewrite_on_home(parts, change); };
  co_await edit(rewrite);
}

Task<void> judge_on_home(HomeParts parts, const Amendment& amendment, Header& header) {
  header = parts.image.header;
  const World& world = parts.image.world;
  co_await judge_amendment(amendment, header, world.diagnostics, parts.image.node_id());
  if (amendment.version.value_or(3) < 3 && header.version >= 3) {
    co_await check_snapshots_for_version2(parts);
  }
}

Task<void> complete_snapshots_on_home(HomeParts parts) {
  SnapshotEditor editor(parts);
  co_await editor.complete_table();
}

Task<void> Amender::upgrade() {
  const ImageEdit complete = &complete_snapshots_on_home;
  co_await edit(complete);
  const HeaderChange change = [](Header& header) -> Result<void> {
    header.version = 3;
    return {};
  };
  co_await edit_header(change);
}

Task<void> Amender::change_laziness() {
  const bool lazy = *amendment_.lazy_refcounts;
  const HeaderChange change = [lazy](Header& header) -> Result<void> {
    header.compatible_features &= ~kCompatibleLazyRefcounts;
    if (lazy) header.compatible_features |= kCompatibleLazyRefcounts;
    return {};
  };
  co_await edit_header(change);
}

Task<void> Amender::change_data_file_alone() {
  std::unique_ptr<SharedStorage> storage = co_await request_.open();
  Result<void> changed = co_await change_data_file_name(graph_, *storage, amendment_).result();
  co_await close_after(std::move(changed), *storage->node);
}

Task<void> Amender::end_raw_data_file() {
  const HeaderChange change = [](Header& header) -> Result<void> {
    header.autoclear_features &= ~kAutoclearRawDataFile;
    return {};
  };
  co_await edit_header(change);
}

Task<void> Amender::change_width() {
  std::unique_ptr<SharedStorage> storage = co_await request_.open();
  Result<void> changed =
      co_await change_refcount_width(graph_.world(), *storage, *amendment_.refcount_order,
                                     request_.cancel, request_.on_progress)
          .result();
  co_await close_after(std::move(changed), *storage->node);
}

// Bits that may be ignored, and those that a writer has to clear, go with their fields.
Result<void> make_version2(Header& header) {
  header.version = 2;
  header.incompatible_features = header.compatible_features = header.autoclear_features = 0;
  header.unknown_fields.clear();
  return {};
}

Task<void> expand_and_make_version2(HomeParts parts, const AmendRequest& request) {
  co_await expand_zero_clusters(parts, request.cancel, request.on_progress);
  TableEditor tables(parts);
  const HeaderChange change = &make_version2;
  co_await tables.rewrite_header(change);
}

Task<void> Amender::downgrade() {
  const ImageEdit on_home = [this](HomeParts parts) {
    return expand_and_make_version2(parts, request_);
  };
  co_await edit(on_home);
}

// Its header stays where it is; nothing else of the image changes.
Task<void> Amender::change_encryption() {
  if (!encryption_) {
    const Error error = Error::of(ErrorKind::kUnsupported, "amend");
    co_await fail(graph_.world().diagnostics.explain(error, "encryption is not supported here"));
  }
  const HostRange place = header_.encryption_header().value();
  std::unique_ptr<SharedStorage> storage = co_await request_.open();
  Result<void> changed =
      co_await encryption_->amend(graph_, *storage, place, amendment_.encryption).result();
  co_await close_after(std::move(changed), *storage->node);
}

// The other steps open the data file by its new name; where nothing else is asked it may be absent.
Task<void> Amender::run() {
  if (amendment_.data_file) {
    co_await change_data_file_alone();
    const bool is_all = !amendment_.version && !amendment_.refcount_order &&
                        !amendment_.lazy_refcounts && amendment_.encryption.values().empty();
    if (is_all) co_return;
  }
  const ImageEdit judge = [this](HomeParts parts) {
    return judge_on_home(parts, amendment_, header_);
  };
  co_await edit(judge);
  if (!amendment_.encryption.empty()) co_await change_encryption();
  const uint32_t version = amendment_.version.value_or(header_.version);
  if (version >= 3 && header_.version < 3) co_await upgrade();
  const uint32_t order = amendment_.refcount_order.value_or(header_.refcount_order);
  if (order != header_.refcount_order) co_await change_width();
  const bool is_lazy = (header_.compatible_features & kCompatibleLazyRefcounts) != 0;
  if (version >= 3 && amendment_.lazy_refcounts.value_or(is_lazy) != is_lazy) {
    co_await change_laziness();
  }
  const bool ends_raw = header_.data_file_is_raw() && !amendment_.data_file_raw.value_or(true);
  if (ends_raw) co_await end_raw_data_file();
  if (version < 3 && header_.version >= 3) co_await downgrade();
}

}  // namespace

Task<void> amend_image(Graph& graph, AmendRequest request, const DataEncryption* encryption) {
  const Amendment amendment =
      co_await parse_amend_options(request.options, graph.world().diagnostics);
  Amender amender(graph, request, amendment, encryption);
  co_await amender.run();
}

}  // namespace ringdisk::qcow2
