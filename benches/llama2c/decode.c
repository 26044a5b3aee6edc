// llama2.c's side of `cargo xtask bench decode`: its own forward pass on a model with random weights, around which only the protocol of
// benches/README.md is ours. Compiled with -DTESTING, which leaves llama2.c's main out, -I<its folder>, and -DSOURCE naming its run.c
// (f32) or its runq.c (int8, with -DQUANTIZED).
//
//     bench-llama2c DIM HIDDEN LAYERS HEADS KV_HEADS VOCAB CONTEXT

#include <stdint.h>
#include SOURCE

#define GROUP 32
#define WARM_UP_TOKENS 8

static uint64_t n_drawn = 0;

// A number in [-1, 1), another each time.
static float spread(void) {
    uint64_t mixed = ++n_drawn * 0x9e3779b97f4a7c15ull;
    return (float)((double)(mixed >> 11) / 4503599627370496.0 - 1.0);
}

static void write_floats(FILE *file, size_t n, float scale, float offset) {
    for (size_t i = 0; i < n; i++) {
        float value = offset + scale * spread();
        fwrite(&value, sizeof(float), 1, file);
    }
}

#ifdef QUANTIZED
// A matrix in groups: all values, then all scales.
static void write_matrix(FILE *file, size_t n) {
    for (size_t i = 0; i < n; i++) {
        int8_t value = (int8_t)(127 * spread());
        fwrite(&value, 1, 1, file);
    }
    write_floats(file, n / GROUP, 0.0002f, 0.001f);
}
#endif

// llama2.c reads models from files only: writes one.
static void write_model(const char *path, Config c) {
    FILE *file = fopen(path, "wb");
    size_t dim = c.dim, kv_dim = (size_t)c.dim / c.n_heads * c.n_kv_heads, layers = c.n_layers, hidden = c.hidden_dim;
#ifdef QUANTIZED
    int magic = 0x616b3432, version = 2, group = GROUP;
    uint8_t is_tied = 1;
    fwrite(&magic, 4, 1, file);
    fwrite(&version, 4, 1, file);
    fwrite(&c, sizeof c, 1, file);
    fwrite(&is_tied, 1, 1, file);
    fwrite(&group, 4, 1, file);
    while (ftell(file) < 256) fputc(0, file);
    write_floats(file, (2 * layers + 1) * dim, 0.0f, 1.0f);
    write_matrix(file, (size_t)c.vocab_size * dim);
    size_t sizes[7] = {dim * dim, kv_dim * dim, kv_dim * dim, dim * dim, hidden * dim, hidden * dim, hidden * dim};
    for (int kind = 0; kind < 7; kind++)
        for (size_t layer = 0; layer < layers; layer++) write_matrix(file, sizes[kind]);
#else
    fwrite(&c, sizeof c, 1, file);
    write_floats(file, (size_t)c.vocab_size * dim, 0.05f, 0.0f);
    write_floats(file, layers * dim, 0.0f, 1.0f);
    write_floats(file, layers * (2 * dim * dim + 2 * kv_dim * dim), 0.1f, 0.0f);
    write_floats(file, layers * dim, 0.0f, 1.0f);
    write_floats(file, layers * 3 * hidden * dim, 0.1f, 0.0f);
    write_floats(file, dim, 0.0f, 1.0f);
    write_floats(file, (size_t)c.seq_len * (dim / c.n_heads), 0.0f, 0.0f);
#endif
    fclose(file);
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + 1e-9 * time.tv_nsec;
}

int main(int argc, char **argv) {
    if (argc != 8) return 2;
    int n[7];
    for (int i = 0; i < 7; i++) n[i] = atoi(argv[i + 1]);
    Config config = {n[0], n[1], n[2], n[3], n[4], n[5], n[6]};
    char path[] = "/tmp/bench-llama2c-XXXXXX";
    close(mkstemp(path));
    write_model(path, config);
    Transformer transformer;
    build_transformer(&transformer, path);
    unlink(path);
    forward(&transformer, 1, 0);
    printf("ready 1\n");
    fflush(stdout);
    char line[64];
    while (fgets(line, sizeof line, stdin)) {
        int steps = atoi(line);
        // Memory of a process that waited may be cold.
        for (int i = 0; i < WARM_UP_TOKENS; i++) forward(&transformer, 1, i);
        // It has no way to read a prompt at once.
        printf("0");
        for (int i = 0; i < steps; i++) {
            double start = now();
            forward(&transformer, (int)((long)i * 7919 % config.vocab_size), i);
            printf(" %.9f", now() - start);
        }
        printf("\n");
        fflush(stdout);
    }
    return 0;
}
