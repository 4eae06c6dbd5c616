/*
 * Opens files by names that strangers have chosen: beneath a folder, and nowhere else. Neither ".." nor a symbolic link
 * leads out of it; a relative link that stays inside is followed, where the kernel can tell (openat2(2), Linux 5.6), and
 * else no link is. What is no regular file is not opened: opening a FIFO or a device may do something.
 *
 * Leaf; any thread. A disk may let it wait.
 */
#pragma once

#include <sys/stat.h>

/*
 * A descriptor to read from, and what is known of the file. Else a negative error: -EISDIR for a folder, -EACCES for
 * what is neither, and for what leads out. `path` is relative; "" is the folder itself.
 */
int beneath_open(const char *folder, const char *path, struct stat *st);

/* The same without openat2(2): follows no link. */
int beneath_open_by_steps(const char *folder, const char *path, struct stat *st);
