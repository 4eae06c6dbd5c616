/*
 * Opens files by names that strangers have chosen: beneath a folder, and nowhere else. Neither ".." nor a symbolic link
 * leads out of it; a relative link that stays inside is followed, where the kernel can tell (openat2(2), Linux 5.6),
 * and else no link is. What is no regular file is not opened: opening a FIFO or a device may do something.
 *
 * Leaf; any thread. A disk may let it wait.
 */
#pragma once

#include <stdbool.h>
#include <sys/stat.h>

/*
 * A descriptor to read from, and what is known of the file. Else a negative error: -EISDIR for a folder, -EACCES for
 * what is neither, and for what leads out. `path` is relative; "" is the folder itself. is_known: it was a regular file
 * a while ago, and is opened at once; what has taken its place is told from one all the same.
 */
int beneath_open(const char *folder, const char *path, bool is_known, struct stat *st);

/* The same without openat2(2): follows no link. */
int beneath_open_by_steps(const char *folder, const char *path, bool is_known, struct stat *st);
