"""Clothing1M on disk, without any federated learning. Start at `data.release`: `open_release` opens a folder or a pack.

`layout` finds and reads the released text files, `stores` holds encoded images, `images` decodes and caches them,
`partition` divides a list among clients, `noise` changes labels, `check` finds damage, `sample` draws a look-alike.
"""
