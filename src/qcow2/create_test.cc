// SPDX-License-Identifier: Apache-2.0
// New images: the layout of every geometry holds together, options are understood or refused by
// name, and what is made checks clean and reads as zeros.
#include "qcow2/create.h"

#include <gtest/gtest.h>

#include "base/diagnostics.h"
#include "nodes/mem.h"
#include "qcow2/check/check.h"
#include "runtime/shard.h"
#include "sim/sim_world.h"

namespace ringdisk::qcow2 {
namespace {

CreateSettings settings_for(uint32_t cluster_bits, uint32_t refcount_order, uint64_t size,
                            Preallocation preallocation) {
  CreateSettings settings;
  settings.header.cluster_bits = cluster_bits;
  settings.header.refcount_order = refcount_order;
  settings.header.size = ByteCount(size);
  settings.preallocation = preallocation;
  return settings;
}

void expect_sound(const Layout& layout, const Geometry& geometry) {
  EXPECT_GE(layout.refcount_block_clusters * geometry.refcount_block_entries(), layout.total);
  EXPECT_GE(geometry.refcount_table_entries(layout.refcount_table_clusters),
            layout.refcount_block_clusters);
  EXPECT_EQ(layout.refcount_table, uint64_t{1});
  EXPECT_EQ(layout.refcount_blocks, layout.refcount_table + layout.refcount_table_clusters);
  EXPECT_EQ(layout.l1_table, layout.refcount_blocks + layout.refcount_block_clusters);
  EXPECT_EQ(layout.l2_tables, layout.l1_table + layout.l1_clusters);
  EXPECT_EQ(layout.data, layout.l2_tables + layout.l2_clusters);
  EXPECT_EQ(layout.total, layout.data + layout.data_clusters);
}

TEST(CreateLayoutTest, EveryGeometryHoldsTogether) {
  Diagnostics diagnostics;
  for (uint32_t cluster_bits = 9; cluster_bits <= 21; ++cluster_bits) {
    for (uint32_t order = 0; order <= 6; ++order) {
      for (uint64_t size : {uint64_t{0}, uint64_t{1}, uint64_t{100} << 20, uint64_t{1} << 31}) {
        for (Preallocation mode : {Preallocation::kOff, Preallocation::kMetadata}) {
          CreateSettings settings = settings_for(cluster_bits, order, size, mode);
          Result<Layout> layout = plan_layout(settings, diagnostics);
          if (!layout.ok()) {  // 64-bit refcounts of 512-byte clusters outgrow their table
            EXPECT_EQ(layout.error().kind, ErrorKind::kLimit);
            continue;
          }
          expect_sound(layout.value(), settings.header.geometry());
        }
      }
    }
  }
}

// Nothing of an image that fills up is left behind by a table that was outgrown.
TEST(CreateLayoutTest, TheRefcountTableHasRoomForTheWholeImage) {
  for (uint32_t cluster_bits = 9; cluster_bits <= 21; ++cluster_bits) {
    for (uint32_t order = 0; order <= 6; ++order) {
      for (uint64_t size : {uint64_t{1}, uint64_t{100} << 20, uint64_t{1} << 31}) {
        const Layout empty = lay_out(settings_for(cluster_bits, order, size, Preallocation::kOff));
        const Layout full =
            lay_out(settings_for(cluster_bits, order, size, Preallocation::kMetadata));
        expect_sound(empty,
                     settings_for(cluster_bits, order, 0, Preallocation::kOff).header.geometry());
        EXPECT_EQ(empty.refcount_table_clusters, full.refcount_table_clusters)
            << cluster_bits << " " << order << " " << size;
      }
    }
  }
}

TEST(CreateLayoutTest, AnL1TableBeyondItsLimitIsRefused) {
  Diagnostics diagnostics;
  CreateSettings settings = settings_for(9, 4, uint64_t{1} << 50, Preallocation::kOff);
  Result<Layout> layout = plan_layout(settings, diagnostics);
  ASSERT_FALSE(layout.ok());
  EXPECT_NE(diagnostics.describe(layout.error()).find("cluster_size"), std::string::npos);
}

// The sentence with which options are refused; "" where they are not.
std::string refusal(std::string_view options, std::string backing = "") {
  Diagnostics diagnostics;
  CreateRequest request;
  request.size = ByteCount(1 << 20);
  request.options = Options::parse(options, diagnostics).value();
  request.backing_name = std::move(backing);
  Result<CreateSettings> settings = parse_create_options(request, diagnostics);
  return settings.ok() ? "" : diagnostics.describe(settings.error());
}

TEST(CreateOptionsTest, WhatCannotBeMadeIsNamed) {
  EXPECT_EQ(refusal("cluster_size=64k,refcount_bits=1,lazy_refcounts=on"), "");
  EXPECT_NE(refusal("cluster_size=3000").find("cluster_size is"), std::string::npos);
  EXPECT_NE(refusal("cluster_size=4M").find("not 4194304"), std::string::npos);
  EXPECT_NE(refusal("refcount_bits=128").find("refcount_bits is"), std::string::npos);
  EXPECT_NE(refusal("compat=0.10,refcount_bits=8").find("compat"), std::string::npos);
  EXPECT_NE(refusal("compat=v2,lazy_refcounts=on").find("compat"), std::string::npos);
  EXPECT_NE(refusal("compression_type=lz4").find("lz4"), std::string::npos);
  EXPECT_EQ(refusal("extended_l2=on"), "");
  EXPECT_EQ(refusal("extended_l2=on,cluster_size=16k"), "");
  EXPECT_EQ(refusal("extended_l2=off,cluster_size=8k,compat=0.10"), "");
  EXPECT_NE(refusal("extended_l2=on,cluster_size=8k").find("cluster_size"), std::string::npos);
  EXPECT_NE(refusal("extended_l2=on,compat=0.10").find("compat"), std::string::npos);
  EXPECT_EQ(refusal("extended_l2=on,preallocation=metadata", "base.raw"), "");
  EXPECT_NE(refusal("preallocation=some").find("some"), std::string::npos);
  EXPECT_NE(refusal("preallocation=full", "base.raw").find("backing"), std::string::npos);
  EXPECT_NE(refusal("flavour=sweet").find("flavour"), std::string::npos);
  EXPECT_EQ(refusal("encrypt.format=luks,compat=0.10"), "");
  EXPECT_EQ(refusal("encrypt.format=luks,preallocation=full"), "");
  EXPECT_NE(refusal("encrypt.format=luks,compat=0.10,preallocation=full").find("noise"),
            std::string::npos);
  EXPECT_NE(refusal("", std::string(1024, 'x')).find("1023"), std::string::npos);
}

Task<std::unique_ptr<StorageNode>> open_memory(const World& world,
                                               std::shared_ptr<MemContent> content) {
  const uint32_t id = world.diagnostics.add_node("new.qcow2");
  co_return std::make_unique<MemNode>("new.qcow2", id, std::move(content));
}

Task<void> resize_memory(std::shared_ptr<MemContent> content, ByteCount size) {
  content->resize(size);
  co_return;
}

// One storage that can be opened again, whatever it is called.
Drivers memory_drivers(const std::shared_ptr<MemContent>& content) {
  StorageDriver driver;
  driver.name = "file";
  driver.open = [content](const World& world, Options, OpenMode) {
    return open_memory(world, content);
  };
  driver.create = [content](const World&, Options, ByteCount size) {
    return resize_memory(content, size);
  };
  Drivers drivers;
  drivers.storages.push_back(std::move(driver));
  return drivers;
}

Task<CheckReport> create_and_check(const World& world, CreateRequest request) {
  const Drivers drivers = memory_drivers(std::make_shared<MemContent>());
  const OpenGate gate(world.diagnostics);
  Graph graph(world, drivers, gate);
  const Options storage = request.storage;
  co_await create_image(graph, std::move(request));
  OpenMode mode;
  std::unique_ptr<SharedStorage> made = co_await graph.open_storage(storage, mode);
  const std::function<void(CheckProgress)> no_progress;
  std::optional<CheckReport> report = co_await check_image(world, *made, no_progress);
  co_await made->node->close();
  CHECK(report.has_value());
  co_return std::move(*report);
}

Result<Preallocation> preallocation_of(std::string text) {
  sim::SimWorld world;
  CreateRequest request;
  request.size = ByteCount(1 << 20);
  request.options = Options::parse(text, world.diagnostics()).value();
  ASSIGN_OR_RETURN(CreateSettings settings, parse_create_options(request, world.diagnostics()));
  return settings.preallocation;
}

TEST(CreateTest, ADataFileIsPreallocatedAsAskedAndARawOneHasItsTablesAtLeast) {
  EXPECT_EQ(preallocation_of("data_file=x,preallocation=falloc").value(), Preallocation::kFalloc);
  EXPECT_EQ(preallocation_of("data_file=x,preallocation=full").value(), Preallocation::kFull);
  EXPECT_EQ(preallocation_of("data_file=x,data_file_raw=on,preallocation=full").value(),
            Preallocation::kFull);
  EXPECT_EQ(preallocation_of("data_file=x,data_file_raw=on").value(), Preallocation::kMetadata);
  EXPECT_EQ(preallocation_of("data_file=x").value(), Preallocation::kOff);
}

TEST(CreateTest, WhatIsMadeChecksCleanAndHasAllItsClusters) {
  for (const char* geometry :
       {"cluster_size=512,refcount_bits=1", "cluster_size=512", "cluster_size=4k,refcount_bits=64",
        "cluster_size=64k", "cluster_size=2M", "cluster_size=64k,compat=0.10"}) {
    for (const char* preallocation : {"off", "metadata", "falloc", "full"}) {
      SCOPED_TRACE(std::string(geometry) + " " + preallocation);
      sim::SimWorld world;
      CreateRequest request;
      request.size = ByteCount(3'000'000);
      request.options = Options::parse(geometry, world.diagnostics()).value();
      request.options.set("preallocation", preallocation);
      auto make = [&](Shard&) { return create_and_check(world.world(), request); };
      Result<CheckReport> report = world.run(make);
      ASSERT_TRUE(report.ok()) << world.diagnostics().describe(report.error());
      EXPECT_EQ(report.value().corruptions, uint64_t{0});
      EXPECT_EQ(report.value().leaks, uint64_t{0});
      const bool all = std::string_view(preallocation) != "off";
      EXPECT_EQ(report.value().allocated_clusters, all ? report.value().total_clusters : 0);
    }
  }
}

}  // namespace
}  // namespace ringdisk::qcow2
