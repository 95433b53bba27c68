// SPDX-License-Identifier: Apache-2.0
// Secrets out of files, descriptors and a real (pseudo) terminal, and who gets which.
#include "control/secret_table.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <termios.h>
#include <unistd.h>

#include <fstream>
#include <thread>

#include "base/diagnostics.h"
#include "control/secret_file.h"
#include "runtime/file_descriptor.h"
#include "runtime/real_loops_test.h"

namespace ringdisk {
namespace {

const Blocking kBlocking = Blocking::allowed_here();

std::string text_of(const SharedSecret& secret) { return std::string(as_text(secret->bytes())); }

// The master side of a terminal: what a person sees and types.
class Person {
 public:
  Person() : master_(posix_openpt(O_RDWR | O_NOCTTY)) {
    EXPECT_EQ(grantpt(master_.get()), 0);
    EXPECT_EQ(unlockpt(master_.get()), 0);
    terminal_ = ptsname(master_.get());
    keeper_ = FileDescriptor(open(terminal_.c_str(), O_RDWR | O_NOCTTY));
  }
  const std::string& terminal() const { return terminal_; }

  // Waits for `question`, then types `answer`.
  void answer(std::string_view question, std::string_view answer) {
    while (seen_.find(question) == std::string::npos) {
      ASSERT_TRUE(look()) << seen_;
    }
    seen_.clear();
    EXPECT_EQ(write(master_.get(), answer.data(), answer.size()),
              static_cast<ssize_t>(answer.size()));
  }
  // All that is shown from now on until nothing more comes.
  std::string rest() {
    while (look(100)) {
    }
    return seen_;
  }
  bool shows_what_is_typed() const {
    termios now{};
    EXPECT_EQ(tcgetattr(keeper_.get(), &now), 0);
    return (now.c_lflag & ECHO) != 0;
  }

 private:
  bool look(int timeout_ms = 10000) {
    pollfd waiting{master_.get(), POLLIN, 0};
    if (poll(&waiting, 1, timeout_ms) != 1) return false;
    char text[256];
    const ssize_t got = read(master_.get(), text, sizeof text);
    if (got > 0) seen_.append(text, static_cast<size_t>(got));
    return got > 0;
  }

  FileDescriptor master_, keeper_;
  std::string terminal_;
  std::string seen_;
};

class SecretFileTest : public testing::Test {
 protected:
  std::string file_with(const std::string& content) {
    const std::string path = folder_ / "secret";
    std::ofstream(path, std::ios::binary) << content;
    return path;
  }
  Result<SecretBytes> read(const std::string& path, KeyFilePart part = {}) {
    return read_secret_file(kBlocking, path, diagnostics_, part);
  }

  Diagnostics diagnostics_;
  TemporaryFolder folder_;
};

TEST_F(SecretFileTest, AllBytesOfAFileAreTheSecret) {
  for (size_t size : {size_t{0}, size_t{9}, size_t{4096}, size_t{4097}, size_t{100'000}}) {
    std::string content(size, 'x');
    for (size_t i = 0; i < size; ++i) content[i] = static_cast<char>(i * 7 % 256);
    Result<SecretBytes> secret = read(file_with(content));
    ASSERT_TRUE(secret.ok());
    EXPECT_TRUE(as_text(secret.value().bytes()) == content) << size;
  }
}

TEST_F(SecretFileTest, ADescriptorIsReadToItsEnd) {
  for (const char* prefix : {"fd:", "/dev/fd/"}) {
    int ends[2];
    ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
    FileDescriptor out(ends[0]), in(ends[1]);
    ASSERT_EQ(write(in.get(), "hunter2\n", 8), 8);
    in = FileDescriptor();
    Result<SecretBytes> secret = read(prefix + std::to_string(out.get()));
    ASSERT_TRUE(secret.ok()) << prefix;
    EXPECT_EQ(as_text(secret.value().bytes()), "hunter2\n");
  }
}

TEST_F(SecretFileTest, APartOfAFileOrAPipeIsTheSecret) {
  const std::string content = std::string(5000, 'x') + "hunter2 and more";
  KeyFilePart part;
  part.offset = 5000;
  part.size = 7;
  Result<SecretBytes> secret = read(file_with(content), part);
  ASSERT_TRUE(secret.ok());
  EXPECT_EQ(as_text(secret.value().bytes()), "hunter2");
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  FileDescriptor out(ends[0]), in(ends[1]);
  ASSERT_EQ(write(in.get(), content.data(), content.size()), static_cast<ssize_t>(content.size()));
  Result<SecretBytes> piped = read("fd:" + std::to_string(out.get()), part);
  ASSERT_TRUE(piped.ok());
  EXPECT_EQ(as_text(piped.value().bytes()), "hunter2");
  part.size = 17;
  EXPECT_FALSE(read(file_with(content), part).ok()) << "one byte more than there is";
  part.size.reset();
  EXPECT_EQ(as_text(read(file_with(content), part).value().bytes()), "hunter2 and more");
  part.offset = content.size() + 1;
  Result<SecretBytes> behind = read(file_with(content), part);
  ASSERT_FALSE(behind.ok());
  EXPECT_NE(diagnostics_.describe(behind.error()).find("it ends before the part"),
            std::string::npos);
}

TEST_F(SecretFileTest, APipeThatGivesNothingHoldsNoSecret) {
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  FileDescriptor out(ends[0]), in(ends[1]);
  in = FileDescriptor();
  for (const std::string& path : {"fd:" + std::to_string(out.get()), std::string("/dev/null")}) {
    Result<SecretBytes> secret = read(path);
    ASSERT_FALSE(secret.ok()) << path;
    EXPECT_NE(diagnostics_.describe(secret.error()).find("nothing came"), std::string::npos);
  }
}

TEST_F(SecretFileTest, WhatCannotBeReadIsNamed) {
  Result<SecretBytes> absent = read(folder_ / "absent");
  ASSERT_FALSE(absent.ok());
  EXPECT_NE(diagnostics_.describe(absent.error()).find("absent': No such file"), std::string::npos);
  EXPECT_FALSE(read("fd:").ok());
  EXPECT_FALSE(read("fd:999999").ok());
  EXPECT_FALSE(read(folder_ / "").ok()) << "a folder";
  Result<SecretBytes> large = read(file_with(std::string(kSecretFileBytesMax + 1, 'x')));
  ASSERT_FALSE(large.ok());
  EXPECT_EQ(large.error().kind, ErrorKind::kLimit);
}

class SecretTableTest : public RealLoopsTest {
 protected:
  std::string file_with(const std::string& name, const std::string& content) {
    const std::string path = folder_ / name.c_str();
    std::ofstream(path, std::ios::binary) << content;
    return path;
  }
  // What `table` says to `wish`, or its error as a person reads it.
  std::string found(SecretTable& table, SecretWish wish) {
    std::string text;
    auto steps = [&](Shard&) -> Task<void> {
      Result<SharedSecret> secret = co_await table.find(wish).result();
      text = secret.ok() ? text_of(secret.value()) : diagnostics().describe(secret.error());
    };
    EXPECT_TRUE(run(1, steps).ok());
    return text;
  }
  static SecretWish wish(std::string id, std::string image = "disk.luks") {
    SecretWish wish;
    wish.id = std::move(id);
    wish.image = std::move(image);
    return wish;
  }

  TemporaryFolder folder_;
  const std::atomic<bool> never_{false};
};

TEST_P(SecretTableTest, SecretsAreFoundByTheirId) {
  SecretTable table(diagnostics());
  const std::string file = file_with("key", "aHVudGVyMg==\n");
  ASSERT_TRUE(table.add_object(kBlocking, "secret,id=a,file=" + file).ok());
  EXPECT_FALSE(table.has_shown_secret());
  ASSERT_TRUE(table.add_object(kBlocking, "secret,id=b,format=base64,file=" + file).ok());
  ASSERT_TRUE(table.add_object(kBlocking, "secret,id=c,data=open sesame").ok());
  EXPECT_TRUE(table.has_shown_secret());
  EXPECT_EQ(found(table, wish("a")), "aHVudGVyMg==\n");
  EXPECT_EQ(found(table, wish("b")), "hunter2");
  EXPECT_EQ(found(table, wish("c")), "open sesame");
  EXPECT_NE(found(table, wish("d")).find("there is no secret 'd'"), std::string::npos);
  EXPECT_FALSE(table.add_object(kBlocking, "secret,id=a,data=x").ok()) << "two of one name";
  EXPECT_FALSE(table.add_object(kBlocking, "secret,id=e,data=*,format=base64").ok());
}

TEST_P(SecretTableTest, TheKeyFileIsForImagesThatNameNone) {
  SecretTable table(diagnostics());
  EXPECT_NE(found(table, wish("")).find("disk.luks: needs a passphrase"), std::string::npos);
  SecretWish below = wish("");
  below.option = "backing.encrypt.key-secret";
  EXPECT_NE(found(table, below).find("and backing.encrypt.key-secret=sec0 in its description"),
            std::string::npos);
  SecretWish made = wish("");
  made.option = "encrypt.key-secret";
  made.place = SecretPlace::kOptions;
  EXPECT_NE(found(table, made).find("and -o encrypt.key-secret=sec0"), std::string::npos);
  SecretWish fresh = wish("");
  fresh.option = "new-key-secret";
  fresh.place = SecretPlace::kCommandLine;
  fresh.key_file_option = "--new-key-file";
  EXPECT_NE(found(table, fresh)
                .find("say --new-key-file PATH, or --object "
                      "secret,id=sec0,file=PATH and --new-key-secret=sec0"),
            std::string::npos);
  ASSERT_TRUE(table.set_key_file(kBlocking, file_with("key", "of a file")).ok());
  EXPECT_EQ(found(table, wish("")), "of a file");
  EXPECT_NE(found(table, wish("d")), "of a file");
}

// The table asks on a thread of the pool, so the person is one of their own.
class AskedTest : public SecretTableTest {
 protected:
  std::string asked(SecretTable& table, const SecretWish& wish, const std::atomic<bool>& stopped) {
    std::string text;
    auto steps = [&](Shard&) -> Task<void> {
      table.ask_at(person_.terminal(), blocking(), stopped);
      Result<SharedSecret> secret = co_await table.find(wish).result();
      text = secret.ok() ? text_of(secret.value()) : diagnostics().describe(secret.error());
    };
    EXPECT_TRUE(run(1, steps).ok());
    return text;
  }

  Person person_;
};

TEST_P(AskedTest, APersonIsAskedOnceAnImageAndNothingIsShown) {
  SecretTable table(diagnostics());
  std::thread typing([&] { person_.answer("Enter passphrase for disk.luks: ", "hunter2\n"); });
  EXPECT_EQ(asked(table, wish(""), never_), "hunter2");
  typing.join();
  EXPECT_EQ(asked(table, wish(""), never_), "hunter2") << "known by now";
  EXPECT_EQ(person_.rest().find("hunter2"), std::string::npos);
  EXPECT_TRUE(person_.shows_what_is_typed());
}

TEST_P(AskedTest, ANewPassphraseIsTypedTwice) {
  SecretTable table(diagnostics());
  SecretWish fresh = wish("");
  fresh.is_new = true;
  std::thread typing([&] {
    person_.answer("Enter passphrase", "one\n");
    person_.answer("Verify passphrase", "another\n");
    person_.answer("Enter passphrase", "same\n");
    person_.answer("Verify passphrase", "same\n");
  });
  EXPECT_EQ(asked(table, fresh, never_), "disk.luks: the two passphrases differ");
  EXPECT_EQ(asked(table, fresh, never_), "same");
  typing.join();
}

TEST_P(AskedTest, WhoIsStoppedLeavesTheTerminalAsItWas) {
  SecretTable table(diagnostics());
  std::atomic<bool> stopped{false};
  std::thread stopping([&] {
    person_.answer("Enter passphrase", "half a passphr");
    EXPECT_FALSE(person_.shows_what_is_typed());
    stopped = true;
  });
  const std::string error = asked(table, wish(""), stopped);
  stopping.join();
  EXPECT_EQ(error.find("half"), std::string::npos);
  EXPECT_NE(error.find("ask at the terminal"), std::string::npos) << error;
  EXPECT_TRUE(person_.shows_what_is_typed());
}

TEST_P(AskedTest, NothingEnteredIsNoPassphrase) {
  SecretTable table(diagnostics());
  std::thread typing([&] { person_.answer("Enter passphrase", "\n"); });
  EXPECT_EQ(asked(table, wish(""), never_), "disk.luks: no passphrase was entered");
  typing.join();
}

RINGDISK_ON_BOTH_LOOPS(SecretTableTest);
RINGDISK_ON_BOTH_LOOPS(AskedTest);

}  // namespace
}  // namespace ringdisk
