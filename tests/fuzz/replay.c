/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Replays a corpus folder through a fuzz entry point, without libFuzzer.
 *
 * Every file of the folder is fed once. Under the sanitizer variant this is what proves that old
 * findings stay fixed. An empty or missing folder is a failure: a replay that feeds nothing proves
 * nothing.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int feed(const char *path)
{
	FILE *f = fopen(path, "re");
	struct stat st;
	uint8_t *data;
	size_t n;

	if (!f || fstat(fileno(f), &st) < 0) {
		perror(path);
		if (f)
			fclose(f);
		return -1;
	}
	/* Exact size, so that a read past the end is past the allocation. */
	data = malloc(st.st_size ? st.st_size : 1);
	if (!data)
		abort();
	n = fread(data, 1, st.st_size, f);
	fclose(f);
	LLVMFuzzerTestOneInput(data, n);
	free(data);
	return 0;
}

int main(int argc, char **argv)
{
	char path[4096];
	struct dirent *e;
	int fed = 0;
	DIR *d;

	if (argc != 2 || !(d = opendir(argv[1]))) {
		fprintf(stderr, "usage: %s CORPUS-FOLDER\n", argv[0]);
		return 2;
	}
	while ((e = readdir(d))) {
		if (e->d_name[0] == '.')
			continue;
		if (snprintf(path, sizeof(path), "%s/%s", argv[1], e->d_name) >= (int)sizeof(path))
			continue;
		if (feed(path) < 0)
			return 1;
		fed++;
	}
	closedir(d);
	printf("%d files replayed\n", fed);
	return fed ? 0 : 1;
}
