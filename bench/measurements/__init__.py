# SPDX-License-Identifier: Apache-2.0
"""What is measured, a file each. A measurement is a module with

    NAME            the word for --only
    measure(world)  an iterator of Results, one for each contest
"""
from measurements import (check, compress, convert, detect_zeroes, edits, empty_image, empty_load,
                          fragmented, lookups, luks_cipher, luks_convert, luks_nbd, nbd_copy,
                          nbd_random)

ALL = (convert, compress, empty_image, check, edits, nbd_random, empty_load, lookups, nbd_copy,
       detect_zeroes, fragmented, luks_cipher, luks_convert, luks_nbd)
