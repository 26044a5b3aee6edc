// llm.c's side of `cargo xtask bench train`: its own GPT-2, forward, backward and AdamW, in f32, around which only the
// protocol of benches/README.md is ours. Compiled with -DTESTING, which leaves llm.c's main out, and -I<its folder>.
//
//     bench-llmc gpt2 DIM HIDDEN LAYERS HEADS KV_HEADS VOCAB BATCH CONTEXT
//
// HIDDEN must be 4 * DIM and KV_HEADS equal to HEADS: it has no other models.

#include "train_gpt2.c"

#define WARM_UP 2
#define STEPS_MAX 1024

// A number in [0, 1) from its index.
static double spread(uint64_t index) {
    uint64_t mixed = (index + 1) * 0x9e3779b97f4a7c15ull;
    return (double)(mixed >> 11) / 9007199254740992.0;
}

// llm.c reads models from files only: writes one with small random weights and says where it is.
static void write_model(const char *path, int context, int vocab, int layers, int heads, int dim) {
    int header[256] = {20240326, 3, context, vocab, layers, heads, dim, vocab};
    GPT2Config config = {context, vocab, vocab, layers, heads, dim};
    size_t sizes[NUM_PARAMETER_TENSORS];
    fill_in_parameter_sizes(sizes, config);
    FILE *file = fopenCheck(path, "wb");
    fwrite(header, sizeof(int), 256, file);
    uint64_t index = 0;
    for (int tensor = 0; tensor < NUM_PARAMETER_TENSORS; tensor++) {
        int is_gain = tensor == 2 || tensor == 8 || tensor == 14;
        int is_bias = tensor == 3 || tensor == 5 || tensor == 7 || tensor == 9 || tensor == 11 || tensor == 13 || tensor == 15;
        for (size_t i = 0; i < sizes[tensor]; i++, index++) {
            // Uniform with a deviation of 0.02.
            float weight = is_gain ? 1.0f : is_bias ? 0.0f : (float)((spread(index) - 0.5) * 0.0693);
            fwrite(&weight, sizeof(float), 1, file);
        }
    }
    fcloseCheck(file);
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static void train(GPT2 *model, int *inputs, int *targets, int batch, int context, int n_steps, double *seconds) {
    static int n_done = 0;
    for (int i = 0; i < n_steps; i++) {
        double start = now();
        gpt2_forward(model, inputs, targets, batch, context);
        gpt2_zero_grad(model);
        gpt2_backward(model);
        gpt2_update(model, 1e-3f, 0.9f, 0.95f, 1e-8f, 0.1f, ++n_done);
        seconds[i] = now() - start;
    }
}

int main(int argc, char **argv) {
    if (argc != 10 || strcmp(argv[1], "gpt2") != 0) {
        fprintf(stderr, "expected `gpt2` and eight numbers\n");
        return 1;
    }
    int dim = atoi(argv[2]), hidden = atoi(argv[3]), layers = atoi(argv[4]), heads = atoi(argv[5]);
    int kv_heads = atoi(argv[6]), vocab = atoi(argv[7]), batch = atoi(argv[8]), context = atoi(argv[9]);
    if (hidden != 4 * dim || kv_heads != heads) {
        fprintf(stderr, "llm.c has hidden layers of 4 times the width, and as many key heads as query heads\n");
        return 1;
    }
    char path[] = "/tmp/bench-llmc-XXXXXX";
    int fd = mkstemp(path);
    if (fd < 0) {
        perror("cannot make a file in /tmp");
        return 1;
    }
    close(fd);
    write_model(path, context, vocab, layers, heads, dim);
    GPT2 model;
    gpt2_build_from_checkpoint(&model, path);
    unlink(path);
    int n = batch * context;
    int *inputs = mallocCheck((n + 1) * sizeof(int)), *targets = mallocCheck(n * sizeof(int));
    for (int i = 0; i <= n; i++) { inputs[i] = (int)(spread(i) * vocab); }
    memcpy(targets, inputs + 1, n * sizeof(int));
    double seconds[STEPS_MAX];
    train(&model, inputs, targets, batch, context, WARM_UP, seconds);
    printf("ready %zu\n", model.num_parameters);
    fflush(stdout);
    for (int n_steps; scanf("%d", &n_steps) == 1 && n_steps <= STEPS_MAX;) {
        train(&model, inputs, targets, batch, context, n_steps, seconds);
        printf("%f", model.mean_loss);
        for (int i = 0; i < n_steps; i++) { printf(" %.9f", seconds[i]); }
        printf("\n");
        fflush(stdout);
    }
    return 0;
}
