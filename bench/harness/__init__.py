# SPDX-License-Identifier: Apache-2.0
"""What all measurements share: the world they run in, contenders in turn, images, results."""
