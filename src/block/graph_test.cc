// SPDX-License-Identifier: Apache-2.0
// From a name to an opened chain. The images here are text files of a made-up format,
// "CHN:BACKING:FORMAT:", whose every part is hostile; what has been opened is counted, so that no
// refusal leaves anything open.
#include "block/graph.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

#include "base/diagnostics.h"
#include "base/limits.h"
#include "nodes/mem.h"
#include "nodes/raw.h"
#include "runtime/real_loops_test.h"
#include "sim/sim_world.h"

namespace ringdisk {
namespace {

using sim::SimWorld;

constexpr std::string_view kMagic = "CHN:";

// A text in memory as a storage. Counts itself while it is open.
class TextNode final : public StorageNode {
 public:
  TextNode(std::string name, uint32_t id, const std::string& text, bool read_only, int& open)
      : StorageNode(std::move(name), id), memory_("text", id, ByteCount(0)), open_(open) {
    memory_.content()->memory().write(HostOffset(0), as_bytes(text));
    memory_.content()->grow_to(ByteCount(text.size()));
    limits_ = memory_.limits();
    limits_.read_only = read_only;
    ++open_;
  }
  const char* driver() const override { return "file"; }
  const StorageLimits& limits() const override { return limits_; }
  ByteCount size() const override { return memory_.size(); }
  Task<ByteCount> allocated_size() override { return memory_.allocated_size(); }
  Task<std::unique_ptr<StorageQueue>> open_queue(Shard& shard) override {
    if (name().ends_with("unreadable")) return refuse_queue();
    return memory_.open_queue(shard);
  }
  Task<void> close() override {
    --open_;
    co_return;
  }

 private:
  static Task<std::unique_ptr<StorageQueue>> refuse_queue() {
    co_return Error::from_errno(EIO, "open");
  }
  MemNode memory_;
  StorageLimits limits_;
  int& open_;
};

// Its disk is as long as the file; it cannot be read.
class ChainNode final : public FormatNode {
 public:
  explicit ChainNode(std::unique_ptr<SharedStorage> storage) : storage_(std::move(storage)) {
    limits_.read_only = storage_->node->limits().read_only;
  }
  const char* driver() const override { return "chain"; }
  const FormatLimits& limits() const override { return limits_; }
  ByteCount size() const override { return storage_->node->size(); }
  Task<std::unique_ptr<FormatQueue>> open_queue(Shard&) override {
    UNREACHABLE("only opened and closed in this test");
  }
  Task<void> close() override { return storage_->node->close(); }

 private:
  std::unique_ptr<SharedStorage> storage_;
  FormatLimits limits_;
};

Task<OpenedFormat> open_chain(FormatOpening opening) {
  Shard& shard = Shard::current();
  std::unique_ptr<StorageAccess> access = co_await StorageAccess::open(*opening.storage, shard);
  std::string text(access->size().value(), '\0');
  MutableBytes bytes = std::as_writable_bytes(std::span(text.data(), text.size()));
  co_await access->read(HostOffset(0), MutableBuffers(bytes));
  access.reset();
  OpenedFormat opened;
  const size_t first = kMagic.size(), second = text.find(':', first);
  opened.backing_name = text.substr(first, second - first);
  opened.backing_format = text.substr(second + 1, text.find(':', second + 1) - second - 1);
  opened.node = std::make_unique<ChainNode>(std::move(opening.storage));
  co_return std::move(opened);
}

class GraphTest : public ::testing::Test {
 protected:
  GraphTest() {
    StorageDriver file;
    file.name = "file";
    file.open = [this](const World& the_world, Options options, OpenMode mode) {
      return open_file(the_world, std::move(options), mode);
    };
    drivers.storages.push_back(std::move(file));
    FormatDriver chain;
    chain.name = "chain";
    chain.probe = [](Bytes bytes) { return as_text(bytes).starts_with(kMagic) ? 100 : 0; };
    chain.open = &open_chain;
    drivers.formats.push_back(std::move(chain));
    drivers.formats.push_back(raw_driver());
  }
  ~GraphTest() override { EXPECT_EQ(storages_open, 0) << "something was left open"; }

  Task<std::unique_ptr<StorageNode>> open_file(const World& the_world, Options options,
                                               OpenMode mode) {
    const std::string name = options.take("filename").value_or("");
    std::ifstream stream(name);
    if (!stream) co_return Error::from_errno(ENOENT, "open");
    std::string text((std::istreambuf_iterator<char>(stream)), std::istreambuf_iterator<char>());
    const uint32_t id = the_world.diagnostics.add_node(name);
    co_return std::make_unique<TextNode>(name, id, text, mode.read_only, storages_open);
  }

  void image(const char* name, const std::string& backing, const std::string& format = "chain") {
    std::ofstream(folder / name) << kMagic << backing << ":" << format << ":";
  }
  // Opens, looks with `check`, closes.
  template <class Check>
  Result<void> with_opened(const char* name, OpenMode mode, Check check, const char* format = "") {
    Graph graph(world.world(), drivers, gate);
    auto root = [&](Shard&) -> Task<void> {
      ImageName image_name;
      image_name.filename = folder / name;
      image_name.format = format;
      std::shared_ptr<DeviceNode> device = co_await graph.open(std::move(image_name), mode);
      check(*device);
      co_await device->close();
    };
    return world.run(root);
  }
  Error refusal(const char* name, const char* format = "") {
    auto unexpected = [](DeviceNode&) { ADD_FAILURE() << "it was opened"; };
    Result<void> done = with_opened(name, OpenMode(), unexpected, format);
    return done.ok() ? Error() : done.error();
  }
  std::string text_of(const Error& error) { return world.diagnostics().describe(error); }

  SimWorld world;
  TemporaryFolder folder;
  Drivers drivers;
  OpenGate gate{world.diagnostics()};
  int storages_open = 0;
};

TEST_F(GraphTest, OpensAChainWithAllBelowTheTopReadOnly) {
  image("top", "middle");
  image("middle", "base", "raw");
  std::ofstream(folder / "base") << std::string(1000, 'x');
  auto check = [&](DeviceNode& top) {
    EXPECT_EQ(storages_open, 3);
    EXPECT_FALSE(top.is_read_only());
    ASSERT_TRUE(top.backing() && top.backing()->backing());
    DeviceNode& base = *top.backing()->backing();
    EXPECT_TRUE(top.backing()->is_read_only());
    EXPECT_TRUE(base.is_read_only());
    EXPECT_STREQ(base.format().driver(), "raw");
    EXPECT_EQ(base.size().value(), 1024u);
    EXPECT_EQ(base.backing(), nullptr);
  };
  Result<void> done = with_opened("top", OpenMode(), check);
  EXPECT_TRUE(done.ok()) << text_of(done.error());
}

TEST_F(GraphTest, OpensNothingBelowWhenAskedNotTo) {
  image("top", "/nowhere/absent");
  OpenMode mode;
  mode.no_backing = true;
  auto check = [&](DeviceNode& top) {
    EXPECT_EQ(storages_open, 1);
    EXPECT_EQ(top.backing(), nullptr);
  };
  EXPECT_TRUE(with_opened("top", mode, check).ok());
}

TEST_F(GraphTest, ALoopIsFoundByWhichFilesTheyAreNotByTheirNames) {
  image("self", "self");
  EXPECT_EQ(refusal("self").kind, ErrorKind::kCorrupt);
  image("a", "./b");
  image("b", "link");
  std::filesystem::create_symlink("a", folder / "link");
  Error error = refusal("a");
  EXPECT_EQ(error.kind, ErrorKind::kCorrupt);
  EXPECT_NE(text_of(error).find("leads back to"), std::string::npos) << text_of(error);
}

TEST_F(GraphTest, AChainThatIsTooLongIsRefused) {
  const uint32_t images = limits::kBackingDepthMax + 2;
  for (uint32_t i = 0; i < images; ++i) {
    image(("i" + std::to_string(i)).c_str(), i + 1 < images ? "i" + std::to_string(i + 1) : "");
  }
  Error error = refusal("i0");
  EXPECT_EQ(error.kind, ErrorKind::kLimit);
  EXPECT_NE(text_of(error).find("longer than 200 images"), std::string::npos) << text_of(error);
  auto check = [&](DeviceNode&) { EXPECT_EQ(storages_open, 201); };
  EXPECT_TRUE(with_opened("i1", OpenMode(), check).ok());
}

TEST_F(GraphTest, WhatTheGateRefusesIsNotOpenedAndNamesTheImage) {
  image("top", "/etc/passwd", "raw");
  Error error = refusal("top");
  EXPECT_EQ(error.kind, ErrorKind::kDenied);
  EXPECT_TRUE(text_of(error).starts_with(folder / "top: backing file '/etc/passwd' lies outside"))
      << text_of(error);
  image("unsaid", "top", "");
  EXPECT_EQ(refusal("unsaid").kind, ErrorKind::kDenied);
  image("absent", "gone");
  EXPECT_EQ(refusal("absent").kind, ErrorKind::kNotFound);
}

TEST_F(GraphTest, AWrongFormatOrDriverIsNamedAndNothingStaysOpen) {
  image("top", "base", "vmdk");
  std::ofstream(folder / "base") << "x";
  Error error = refusal("top");
  EXPECT_NE(text_of(error).find("unknown driver 'vmdk'"), std::string::npos) << text_of(error);
  Error named = refusal("base", "vdi");
  EXPECT_NE(text_of(named).find("unknown driver 'vdi'"), std::string::npos) << text_of(named);
}

TEST_F(GraphTest, AnImageThatCannotBeProbedIsClosedAgain) {
  std::ofstream(folder / "unreadable") << "x";
  EXPECT_EQ(refusal("unreadable").errno_value, EIO);
}

TEST_F(GraphTest, AProbedDiskIsRawWhenItLooksLikeNothingElse) {
  std::ofstream(folder / "disk") << std::string(2048, 'x');
  auto raw = [](DeviceNode& device) { EXPECT_STREQ(device.format().driver(), "raw"); };
  EXPECT_TRUE(with_opened("disk", OpenMode(), raw).ok());
  image("chain", "");
  auto chain = [](DeviceNode& device) { EXPECT_STREQ(device.format().driver(), "chain"); };
  EXPECT_TRUE(with_opened("chain", OpenMode(), chain).ok());
  // Called raw it is raw, whatever it looks like.
  EXPECT_TRUE(with_opened("chain", OpenMode(), raw, "raw").ok());
}

TEST_F(GraphTest, WhatIsLeftOfAnImageIsNotWrittenToAsRawUnlessSaid) {
  FormatRemains remains;
  remains.what = "half a chain";
  drivers.formats.front().find_remains = [&](const World&, StorageAccess&) -> Task<FormatRemains> {
    co_return remains;
  };
  std::ofstream(folder / "disk") << std::string(2048, 'x');
  auto raw = [](DeviceNode& device) { EXPECT_STREQ(device.format().driver(), "raw"); };
  remains.format = "chain";
  const Error error = refusal("disk");
  EXPECT_EQ(error.kind, ErrorKind::kDenied);
  EXPECT_EQ(text_of(error), folder /
                                "disk: holds half a chain, and writing to it as raw could "
                                "destroy a disk; say -f chain if it is one, else -f raw");
  EXPECT_TRUE(with_opened("disk", OpenMode(), raw, "raw").ok());
  OpenMode reading;
  reading.read_only = true;
  EXPECT_TRUE(with_opened("disk", reading, raw).ok());
  remains.is_overwritten = true;
  EXPECT_TRUE(with_opened("disk", OpenMode(), raw).ok()) << "it has become something else";
}

TEST_F(GraphTest, ADescriptionNamesDriversOptionsAndFiles) {
  std::ofstream(folder / "disk") << std::string(4096, 'x');
  Graph graph(world.world(), drivers, gate);
  auto root = [&](Shard&) -> Task<void> {
    ImageName name;
    name.options = co_await Options::parse(
        "driver=raw,offset=1k,size=512,file.driver=file,file.filename=" + (folder / "disk"),
        world.diagnostics());
    EXPECT_EQ(name.text(), folder / "disk");
    std::shared_ptr<DeviceNode> device = co_await graph.open(std::move(name), OpenMode());
    EXPECT_EQ(device->size().value(), 512u);
    co_await device->close();
    ImageName wrong;
    wrong.options = co_await Options::parse("driver=raw,speed=9,file.filename=" + (folder / "disk"),
                                            world.diagnostics());
    Result<std::shared_ptr<DeviceNode>> none =
        co_await graph.open(std::move(wrong), OpenMode()).result();
    EXPECT_EQ(text_of(none.error()), folder / "disk: raw has no option 'speed'");
    ImageName tape;
    tape.options = co_await Options::parse("driver=raw,file.driver=tape", world.diagnostics());
    Result<std::shared_ptr<DeviceNode>> nothing =
        co_await graph.open(std::move(tape), OpenMode()).result();
    EXPECT_EQ(text_of(nothing.error()), "there is no storage driver 'tape'");
  };
  Result<void> done = world.run(root);
  EXPECT_TRUE(done.ok()) << text_of(done.error());
}

// What is said of the images below the top one.
class DescribedBackingTest : public GraphTest {
 protected:
  // The chain's images from the top on, each with its format and a raw one with its size; else the
  // refusal.
  std::string chain_of(const std::string& description, OpenMode mode = OpenMode()) {
    Graph graph(world.world(), drivers, gate);
    std::string names;
    auto root = [&](Shard&) -> Task<void> {
      ImageName name;
      name.options = co_await Options::parse(description, world.diagnostics());
      std::shared_ptr<DeviceNode> device = co_await graph.open(std::move(name), mode);
      for (const DeviceNode* one = device.get(); one; one = one->backing().get()) {
        EXPECT_EQ(one->is_read_only(), one != device.get());
        const std::string path = one->name(), driver = one->format().driver();
        names += path.substr(path.rfind('/') + 1) + ":" + driver;
        if (driver == "raw") names += ":" + std::to_string(one->size().value());
        names += " ";
      }
      co_await device->close();
    };
    Result<void> done = world.run(root);
    return done.ok() ? names : text_of(done.error());
  }
  std::string top() const { return "driver=chain,file.filename=" + (folder / "top"); }
  void expect_refused(const std::string& description, std::string_view why) {
    const std::string text = chain_of(description);
    EXPECT_NE(text.find(why), std::string::npos) << text;
  }
};

TEST_F(DescribedBackingTest, OptionsGoToTheImageTheyAreAbout) {
  image("top", "middle");
  image("middle", "base", "raw");
  std::ofstream(folder / "base") << std::string(4096, 'x');
  EXPECT_EQ(chain_of(top() + ",backing.backing.offset=1k,backing.backing.size=512"),
            "top:chain middle:chain base:raw:512 ");
  expect_refused(top() + ",backing.backing.speed=9",
                 "base: raw has no option 'backing.backing.speed'");
  expect_refused(top() + ",backing.backing.backing.size=1",
                 "base: the format raw has no backing images; leave out 'backing.size'");
  expect_refused(top() + ",backing.backing.file.filename=" + (folder / "gone"), "gone");
}

TEST_F(DescribedBackingTest, AnotherFileThanTheRecordedOneIsTheUsersChoice) {
  image("top", "/nowhere/absent", "raw");
  std::filesystem::create_directory(folder / "elsewhere");
  std::ofstream(folder / "elsewhere/base") << std::string(1024, 'x');
  const std::string other = ",backing.file.filename=" + (folder / "elsewhere/base");
  EXPECT_EQ(chain_of(top() + other), "top:chain base:raw:1024 ");
  EXPECT_EQ(chain_of(top() + ",backing.driver=raw,backing.size=512" + other),
            "top:chain base:raw:512 ");
  EXPECT_EQ(
      chain_of(top() + ",backing.driver=file,backing.filename=" + (folder / "elsewhere/base")),
      "top:chain base:raw:1024 ");
  expect_refused(top() + ",backing.driver=vmdk" + other, "there is no driver 'vmdk'");
  image("bare", "");
  EXPECT_EQ(chain_of("driver=chain,backing.driver=raw,file.filename=" + (folder / "bare") + other),
            "bare:chain base:raw:1024 ");
}

TEST_F(DescribedBackingTest, TheGateDecidesAboutTheRecordedOneWhateverItsOptions) {
  image("top", "/etc/passwd", "raw");
  expect_refused(top() + ",backing.size=512", "backing file '/etc/passwd' lies outside");
  expect_refused(top() + ",backing.driver=raw", "backing file '/etc/passwd' lies outside");
  // What only lacks a format gets one.
  image("top", "base", "");
  std::ofstream(folder / "base") << std::string(1024, 'x');
  expect_refused(top(), "has no recorded format");
  EXPECT_EQ(chain_of(top() + ",backing.driver=raw"), "top:chain base:raw:1024 ");
}

TEST_F(DescribedBackingTest, NoneMeansThatNothingIsOpenedBelow) {
  image("top", "/nowhere/absent");
  EXPECT_EQ(chain_of(top() + ",backing="), "top:chain ");
  expect_refused(top() + ",backing=,backing.size=1", "'backing.size' has no meaning then");
  expect_refused(top() + ",backing=node0", "write backing.file.filename=FILE");
  expect_refused("driver=raw,backing=,file.filename=" + (folder / "top"), "leave out 'backing'");
}

TEST_F(DescribedBackingTest, WordsAboutAnImageThatIsNotThereAreRefused) {
  image("top", "");
  expect_refused(top() + ",backing.size=1", "top: has no backing image, of which 'backing.size'");
  image("top", "/nowhere/absent");
  OpenMode mode;
  mode.no_backing = true;
  EXPECT_EQ(chain_of(top() + ",backing.size=1", mode), "top:chain ");
}

// Who does not open the images below refuses what they would refuse.
TEST_F(DescribedBackingTest, WordsThatNobodyKnowsAreRefusedWithoutOpeningAnything) {
  OpenMode mode;
  mode.no_backing = true;
  drivers.storages[0].words = {"filename", "cache."};
  drivers.formats[0].words = {"key"};
  auto expect_known = [&](const std::string& words) {
    EXPECT_EQ(chain_of(top() + "," + words, mode), "top:chain ") << words;
  };
  auto expect_unknown = [&](const std::string& words, const std::string& why) {
    EXPECT_EQ(chain_of(top() + "," + words, mode), (folder / "top: ") + why) << words;
  };
  image("top", "/nowhere/absent", "raw");
  expect_known("backing.size=1,backing.file.cache.direct=on,backing.discard=unmap");
  expect_known("backing.driver=chain,backing.key=1,backing.backing.size=1");
  expect_known("backing.driver=file,backing.filename=x");
  expect_known("backing=");
  expect_unknown("backing.speed=9", "raw has no option 'backing.speed'");
  expect_unknown("backing.key=1", "raw has no option 'backing.key'");
  expect_unknown("backing.file.speed=9", "file has no option 'backing.file.speed'");
  expect_unknown("backing.driver=file,backing.size=1", "file has no option 'backing.size'");
  expect_unknown("backing.driver=vmdk", "there is no driver 'vmdk'");
  expect_unknown("backing.file.driver=ftp", "there is no driver 'ftp'");
  // Nobody knows the format of what lies below that.
  expect_unknown("backing.driver=chain,backing.backing.speed=9",
                 "no driver has an option 'backing.backing.speed'");
}

// Whoever lacks a passphrase hears what to write, wherever in the chain the image is.
TEST_F(DescribedBackingTest, TheOptionThatNamesASecretIsThatOfTheWholeDescription) {
  class Secrets final : public SecretSource {
   public:
    Task<SharedSecret> find(SecretWish wish) override {
      options += wish.option + " ";
      co_return SharedSecret();
    }
    std::string options;
  };
  drivers.formats[0].open = [](FormatOpening opening) -> Task<OpenedFormat> {
    SecretWish wish;
    wish.option = "key-secret";
    const SharedSecret none = co_await opening.graph.find_secret(std::move(wish));
    co_return co_await open_chain(std::move(opening)).result();
  };
  image("top", "middle");
  image("middle", "base");
  image("base", "");
  Secrets secrets;
  Graph graph(world.world(), drivers, gate, &secrets);
  auto root = [&](Shard&) -> Task<void> {
    ImageName name;
    name.filename = folder / "top";
    std::shared_ptr<DeviceNode> device = co_await graph.open(std::move(name), OpenMode());
    co_await device->close();
  };
  EXPECT_TRUE(world.run(root).ok());
  EXPECT_EQ(secrets.options, "key-secret backing.key-secret backing.backing.key-secret ");
}

TEST_F(DescribedBackingTest, ALoopIsFoundThroughAFileThatTheUserNamed) {
  image("top", "other");
  expect_refused(top() + ",backing.file.filename=" + (folder / "top"), "leads back to");
  image("other", "top");
  expect_refused(top() + ",backing.driver=chain", "leads back to");
}

// As qemu has it: nobody said that there is a format in it.
TEST_F(GraphTest, ADescriptionOfAStorageAloneIsItsBytesWhateverTheyLookLike) {
  image("chain", "");
  Graph graph(world.world(), drivers, gate);
  auto root = [&](Shard&) -> Task<void> {
    ImageName name;
    name.options =
        co_await Options::parse("driver=file,filename=" + (folder / "chain"), world.diagnostics());
    std::shared_ptr<DeviceNode> device = co_await graph.open(std::move(name), OpenMode());
    EXPECT_STREQ(device->format().driver(), "raw");
    EXPECT_EQ(device->name(), folder / "chain");
    co_await device->close();
    ImageName probed;
    probed.options =
        co_await Options::parse("file.filename=" + (folder / "chain"), world.diagnostics());
    device = co_await graph.open(std::move(probed), OpenMode());
    EXPECT_STREQ(device->format().driver(), "chain");
    co_await device->close();
  };
  Result<void> done = world.run(root);
  EXPECT_TRUE(done.ok()) << text_of(done.error());
}

TEST_F(GraphTest, ADescriptionIsTakenApart) {
  Graph graph(world.world(), drivers, gate);
  auto take_apart = [&](std::string_view text) {
    ImageName name;
    name.options = Options::parse(text, world.diagnostics()).value();
    return graph.take_apart(std::move(name));
  };
  ImageParts parts = take_apart("driver=chain,x=1,file.filename=a,file.y=2").value();
  EXPECT_EQ(parts.format, "chain");
  EXPECT_EQ(parts.path(), "a");
  EXPECT_EQ(parts.storage.get("y"), "2");
  EXPECT_EQ(parts.options.get("x"), "1");
  EXPECT_FALSE(parts.is_bare_storage);
  parts = take_apart("driver=file,filename=a,y=2").value();
  EXPECT_TRUE(parts.is_bare_storage);
  EXPECT_EQ(parts.format, "raw");
  EXPECT_EQ(parts.storage.get("y"), "2") << "what it says is said to the storage";
  EXPECT_TRUE(parts.options.empty());
  EXPECT_EQ(text_of(take_apart("driver=tape,file.filename=a").error()),
            "there is no driver 'tape'");
  for (const char* text : {"driver=chain", "driver=chain,filename=a", "filename=a", "x=1"}) {
    Result<ImageParts> none = take_apart(text);
    ASSERT_FALSE(none.ok()) << text;
    EXPECT_NE(text_of(none.error()).find("file.filename="), std::string::npos) << text;
  }
}

}  // namespace
}  // namespace ringdisk
