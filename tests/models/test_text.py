"""The text Transformer: PyTorch's features with PyTorch's weights, what padding may change, what is refused."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from dnc.data.tokenizer import VOCABULARY, encode
from dnc.models.text import TextTransformer
from tests.samples import rngs

WIDTH, LENGTH = 16, 12
SIZES = dict(vocabulary=VOCABULARY, context_length=LENGTH, width=WIDTH, depth=2, heads=2, mlp_ratio=2.0)
TOKENS = jnp.stack([jnp.asarray(encode(text, LENGTH)) for text in ("a red star", "b", "")])
PUBLISHED = {
    "CLIPTextModel": dict(causal=True, activation="quick_gelu", epsilon=1e-5),
    "SiglipTextModel": dict(causal=False, activation="gelu_tanh", epsilon=1e-6),
}
NAMES = [  # in PyTorch, here
    (r".*embeddings\.token_embedding\.weight", "embedding"),
    (r".*embeddings\.position_embedding\.weight", "positions"),
    (r".*encoder\.layers\.", "blocks."),
    (r"layer_norm(\d)\.", r"norm\1."),
    (r".*final_layer_norm\.", "norm."),
    (r"self_attn\.q_proj", "attention.query"),
    (r"self_attn\.k_proj", "attention.key"),
    (r"self_attn\.v_proj", "attention.value"),
    (r"self_attn\.out_proj", "attention.out"),
    (r"mlp\.fc1", "mlp.first"),
    (r"mlp\.fc2", "mlp.second"),
    (r"norm(\d?)\.weight", r"norm\1.scale"),
    (r"\.weight$", ".kernel"),
]


def text_transformer(**settings):
    return TextTransformer(**SIZES | settings, rngs=rngs())


def features_and_hidden(tower):
    return jax.jit(lambda tokens: (tower(tokens), tower.hidden(tokens)))


def copied(module, **settings):
    """With the PyTorch module's weights; every weight must find its place and every place its weight."""
    here = {}
    for path, p in module.named_parameters():
        if path.startswith("head."):
            continue  # SigLIP's projection
        for pattern, name in NAMES:
            path = re.sub(pattern, name, path)
        here[path] = p.detach().numpy().T if path.endswith("kernel") else p.detach().numpy()
    tower = nnx.eval_shape(lambda: TextTransformer(**SIZES, **settings, rngs=nnx.Rngs(0)))
    for path, p in nnx.to_flat_state(nnx.state(tower, nnx.Param)):
        weight = here.pop(".".join(map(str, path)))
        assert weight.shape == p.shape, path
        p.set_value(jnp.asarray(weight))
    assert not here
    return tower


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_models(name):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    config = getattr(transformers, name.replace("Model", "Config"))(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=LENGTH,
        eos_token_id=VOCABULARY - 1,
    )
    torch.manual_seed(0)
    module = getattr(transformers, name)(config).eval()
    with torch.inference_mode():
        for path, p in module.named_parameters():
            p.normal_(1.0 if re.search(r"norm\d?\.weight", path) else 0.0, 0.3)
        if name == "SiglipTextModel":  # its projection, which is an objective's here
            for path, p in module.named_parameters():
                if path.endswith("head.weight"):
                    torch.nn.init.eye_(p)
                elif path.endswith("head.bias"):
                    p.zero_()
        expected = module(torch.from_numpy(np.asarray(TOKENS).astype(np.int64)))
    tower = copied(module, **PUBLISHED[name])
    features, hidden = features_and_hidden(tower)(TOKENS)
    np.testing.assert_allclose(hidden, expected.last_hidden_state.numpy(), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(features, expected.pooler_output.numpy(), rtol=1e-4, atol=1e-4)


def test_a_causal_feature_sees_its_caption_and_no_padding():
    run = features_and_hidden(text_transformer(causal=True))
    features, hidden = run(TOKENS)
    np.testing.assert_array_equal(run(TOKENS.at[1, 3:].set(7))[0][1], features[1])  # after its end
    assert np.abs(run(TOKENS.at[1, 1].set(7))[0][1] - features[1]).max() > 1e-4
    np.testing.assert_array_equal(features[0], hidden[0, len("a red star") + 1])
    np.testing.assert_array_equal(features[2], hidden[2, 1])
    np.testing.assert_array_equal(hidden[:, 0], np.broadcast_to(hidden[:1, 0], (3, WIDTH)))  # the begin sees itself
    assert np.all(np.isnan(run(TOKENS.at[0, 1].set(VOCABULARY))[0][0]))  # no such token


def test_a_feature_that_sees_both_directions_is_that_of_the_last_position():
    features, hidden = features_and_hidden(text_transformer(causal=False))(TOKENS)
    np.testing.assert_array_equal(features, hidden[:, -1])
    assert np.abs(hidden[0, 0] - hidden[1, 0]).max() > 1e-4


def test_blocks_computed_again_give_the_same_gradients():
    def gradient(remat):
        graphdef, params = nnx.split(text_transformer(causal=True, depth=1, remat=remat))
        return jax.jit(jax.grad(lambda params: jnp.sum(nnx.merge(graphdef, params)(TOKENS) ** 2)))(params)

    for one, two in zip(jax.tree.leaves(gradient(True)), jax.tree.leaves(gradient(False)), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5)


def test_features_of_a_network_in_bfloat16_are_float32():
    assert jax.eval_shape(text_transformer(causal=True, dtype=jnp.bfloat16), TOKENS).dtype == jnp.float32


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="texts of 5 tokens: this Transformer has positions for 12"):
        text_transformer(causal=True)(TOKENS[:, :5])
    with pytest.raises(ValueError, match="depth=0"):
        text_transformer(causal=True, depth=0)
