/*
 * Runs a fuzz target over saved inputs, without libFuzzer: the files, and those
 * in the directories, that are given as arguments.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fail(const char *path)
{
	perror(path);
	exit(1);
}

static unsigned replay_file(const char *path, size_t size)
{
	/* Exactly as long as the input, so that the sanitizer sees a byte read too many. */
	uint8_t *data = malloc(size ? size : 1);
	FILE *file = fopen(path, "rb");

	if (!file || !data || fread(data, 1, size, file) != size)
		fail(path);
	fclose(file);
	LLVMFuzzerTestOneInput(data, size);
	free(data);
	return 1;
}

static unsigned replay(const char *path);

static unsigned replay_directory(const char *path)
{
	DIR *directory = opendir(path);
	unsigned count = 0;

	if (!directory)
		fail(path);
	for (struct dirent *entry; (entry = readdir(directory));) {
		char inner[4096];

		if (entry->d_name[0] == '.')
			continue;
		if (snprintf(inner, sizeof inner, "%s/%s", path, entry->d_name) >= (int)sizeof inner)
			fail(path);
		count += replay(inner);
	}
	closedir(directory);
	return count;
}

static unsigned replay(const char *path)
{
	struct stat info;

	if (stat(path, &info))
		fail(path);
	return S_ISDIR(info.st_mode) ? replay_directory(path) : replay_file(path, (size_t)info.st_size);
}

int main(int argc, char **argv)
{
	unsigned count = 0;

	for (int i = 1; i < argc; i++)
		count += replay(argv[i]);
	printf("%u inputs replayed\n", count);
	return 0;
}
