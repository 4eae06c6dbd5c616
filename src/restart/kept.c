#include "restart/kept.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { VERSION = 1, COUNT_MOST = 1024, BYTES_MOST = 16 << 20 };

/* Both processes are of the same machine: numbers are as they lie in memory. */
struct header {
	char magic[8];
	uint32_t version, count;
};

static const char MAGIC[8] = "prlnkept";

/* ---- writing ---- */

static int open_room(void)
{
	int fd = memfd_create("perilune snapshots", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		fd = open(P_tmpdir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	return fd < 0 ? -errno : fd;
}

static int write_all(int fd, const void *bytes, size_t len)
{
	const char *at = bytes;
	while (len) {
		ssize_t n = write(fd, at, len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -EIO;
		at += n;
		len -= (size_t)n;
	}
	return 0;
}

static int write_lengths(int fd, const struct kept *kept)
{
	int err = 0;
	for (unsigned i = 0; !err && i < kept->count; i++) {
		uint64_t len = kept->snapshots[i].len;
		err = write_all(fd, &len, sizeof len);
	}
	return err;
}

static int write_kept(int fd, const struct kept *kept)
{
	struct header header = { .version = VERSION, .count = kept->count };
	memcpy(header.magic, MAGIC, sizeof header.magic);
	int err = write_all(fd, &header, sizeof header);
	if (!err)
		err = write_lengths(fd, kept);
	for (unsigned i = 0; !err && i < kept->count; i++)
		err = write_all(fd, kept->snapshots[i].bytes, kept->snapshots[i].len);
	return err;
}

int kept_write(const struct kept *kept)
{
	int fd = open_room();
	if (fd < 0)
		return fd;
	int err = write_kept(fd, kept);
	if (err) {
		close(fd);
		return err;
	}
	/* A file cannot be sealed, and need not: it is read, and not mapped. */
	(void)fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL);
	return fd;
}

/* ---- reading ---- */

struct reading {
	int fd;
	uint64_t at, end;
	char *why;
	size_t size;
};

static bool kept_fail(struct reading *reading, const char *what)
{
	snprintf(reading->why, reading->size, "what the old process keeps cannot be read: %s", what);
	return false;
}

static bool kept_read_bytes(struct reading *reading, void *bytes, size_t len)
{
	char *to = bytes;
	if (len > reading->end - reading->at)
		return kept_fail(reading, "it ends too early");
	while (len) {
		ssize_t n = pread(reading->fd, to, len, (off_t)reading->at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return kept_fail(reading, n ? strerror(errno) : "it ends too early");
		to += n;
		len -= (size_t)n;
		reading->at += (uint64_t)n;
	}
	return true;
}

static bool read_header(struct reading *reading, unsigned *count)
{
	struct header header;
	char text[80];
	if (!kept_read_bytes(reading, &header, sizeof header))
		return false;
	if (memcmp(header.magic, MAGIC, sizeof header.magic) != 0)
		return kept_fail(reading, "it is something else");
	snprintf(text, sizeof text, "it has the form %" PRIu32 ", and this version knows %d: restart instead",
		 header.version, VERSION);
	if (header.version != VERSION)
		return kept_fail(reading, text);
	if (header.count > COUNT_MOST)
		return kept_fail(reading, "there are too many");
	*count = header.count;
	return true;
}

static bool read_lengths(struct reading *reading, struct kept *kept)
{
	for (unsigned i = 0; i < kept->count; i++) {
		uint64_t len;
		if (!kept_read_bytes(reading, &len, sizeof len))
			return false;
		if (len > BYTES_MOST)
			return kept_fail(reading, "one is too large");
		kept->snapshots[i].len = (size_t)len;
	}
	return true;
}

static bool read_snapshots(struct reading *reading, struct kept *kept)
{
	for (unsigned i = 0; i < kept->count; i++) {
		struct snapshot *snapshot = &kept->snapshots[i];
		if (!snapshot->len)
			continue;
		if (snapshot->len > reading->end - reading->at)
			return kept_fail(reading, "it ends too early");
		snapshot->bytes = malloc(snapshot->len);
		if (!snapshot->bytes)
			return kept_fail(reading, "not enough memory");
		if (!kept_read_bytes(reading, snapshot->bytes, snapshot->len))
			return false;
	}
	return true;
}

bool kept_read(int fd, struct kept *kept, char *why, size_t size)
{
	struct reading reading = { .fd = fd, .why = why, .size = size };
	struct stat st;
	*kept = (struct kept){ 0 };
	if (fstat(fd, &st))
		return kept_fail(&reading, strerror(errno));
	reading.end = st.st_size > 0 ? (uint64_t)st.st_size : 0;
	unsigned count;
	if (!read_header(&reading, &count))
		return false;
	kept->snapshots = calloc(count + 1, sizeof *kept->snapshots);
	if (!kept->snapshots)
		return kept_fail(&reading, "not enough memory");
	kept->count = count;
	if (read_lengths(&reading, kept) && read_snapshots(&reading, kept))
		return true;
	kept_free(kept);
	return false;
}

/* ---- having it ---- */

static int take_kept(struct snapshot_source *source, struct snapshot *snapshot, char *why, size_t size)
{
	struct kept_source *from = (struct kept_source *)(void *)source;
	(void)why;
	(void)size;
	if (from->snapshot) {
		*snapshot = *from->snapshot;
		*from->snapshot = (struct snapshot){ 0 };
	}
	return 0;
}

struct kept_source kept_source(struct kept *kept, unsigned worker)
{
	return (struct kept_source){ { take_kept }, worker < kept->count ? &kept->snapshots[worker] : NULL };
}

void kept_free(struct kept *kept)
{
	for (unsigned i = 0; i < kept->count; i++)
		snapshot_free(&kept->snapshots[i]);
	free(kept->snapshots);
	*kept = (struct kept){ 0 };
}
