// SPDX-License-Identifier: Apache-2.0
// The words of --object as QEMU takes them, and base64 by RFC 4648's own examples.
#include "control/secret_option.h"

#include <gtest/gtest.h>

#include "base/diagnostics.h"

namespace ringdisk {
namespace {

class SecretOptionTest : public testing::Test {
 protected:
  SecretOption parsed(std::string_view text) {
    Result<SecretOption> option = parse_secret_option(text, diagnostics_);
    EXPECT_TRUE(option.ok()) << text;
    return option.ok() ? std::move(option).value() : SecretOption();
  }
  std::string refusal(std::string_view text) {
    Result<SecretOption> option = parse_secret_option(text, diagnostics_);
    EXPECT_FALSE(option.ok()) << text;
    return option.ok() ? "" : diagnostics_.describe(option.error());
  }

 private:
  Diagnostics diagnostics_;
};

TEST_F(SecretOptionTest, DataAndFilesAreTaken) {
  const SecretOption data = parsed("secret,id=sec0,data=hunter2");
  EXPECT_EQ(data.id, "sec0");
  EXPECT_EQ(data.value, "hunter2");
  EXPECT_FALSE(data.is_file);
  EXPECT_FALSE(data.is_base64);
  const SecretOption file = parsed("qom-type=secret,file=/etc/key,format=base64,id=a");
  EXPECT_EQ(file.id, "a");
  EXPECT_EQ(file.value, "/etc/key");
  EXPECT_TRUE(file.is_file);
  EXPECT_TRUE(file.is_base64);
}

TEST_F(SecretOptionTest, ACommaInASecretIsDoubled) {
  EXPECT_EQ(parsed("secret,id=a,data=x,,y=z").value, "x,y=z");
  EXPECT_EQ(parsed("secret,id=a,format=raw,data=").value, "");
}

TEST_F(SecretOptionTest, WhatIsNotRightIsNamed) {
  EXPECT_NE(refusal("tls-creds-psk,id=a,dir=x").find("tls-creds-psk"), std::string::npos);
  EXPECT_NE(refusal("secret,data=x").find("id=sec0"), std::string::npos);
  EXPECT_NE(refusal("secret,id=a").find("either file=PATH or data=TEXT"), std::string::npos);
  EXPECT_NE(refusal("secret,id=a,data=x,file=y").find("either"), std::string::npos);
  EXPECT_NE(refusal("secret,id=a,data=x,format=hex").find("'hex'"), std::string::npos);
  EXPECT_NE(refusal("secret,id=a,data=x,keyid=b,iv=c").find("keyid"), std::string::npos);
  EXPECT_NE(refusal("secret,id=a,data=x,loaded=on").find("'loaded'"), std::string::npos);
}

TEST_F(SecretOptionTest, ARefusalHoldsNoSecret) {
  for (std::string_view text : {"secret,id=a,data=hunter2,format=hex", "secret,data=hunter2",
                                "secret,id=a,data=hunter2,file=y", "data=hunter2,id=a"}) {
    EXPECT_EQ(refusal(text).find("hunter2"), std::string::npos);
  }
}

struct Example {
  std::string_view encoded, plain;
};

TEST(Base64Test, TheExamplesOfTheStandardDecode) {
  for (const Example& example :
       {Example{"", ""}, Example{"Zg==", "f"}, Example{"Zm8=", "fo"}, Example{"Zm9v", "foo"},
        Example{"Zm9vYg==", "foob"}, Example{"Zm9vYmE=", "fooba"}, Example{"Zm9vYmFy", "foobar"},
        Example{"Zm9v\nYmFy\n", "foobar"}, Example{"+/+/", "\xfb\xff\xbf"}}) {
    Result<SecretBytes> decoded = decode_base64_secret(as_bytes(example.encoded));
    ASSERT_TRUE(decoded.ok()) << example.encoded;
    EXPECT_EQ(as_text(decoded.value().bytes()), example.plain);
  }
}

TEST(Base64Test, WhatIsNotBase64IsRefused) {
  for (std::string_view text : {"Z", "Zg", "Zg=", "Zg===", "Zm8", "Zm9v=", "Zg==Zg==", "Zm 9",
                                "Zm9*", "Zh==", "Zm9=", "Zg=\n=="}) {
    EXPECT_FALSE(decode_base64_secret(as_bytes(text)).ok()) << text;
  }
}

}  // namespace
}  // namespace ringdisk
