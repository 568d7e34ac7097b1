"""The main job in small: the digits are learnt in eager mode, the same each time."""

import dualgraph as dg
import dualgraph.nn.functional as F
from dualgraph import optim
from dualgraph.data import DataLoader, TensorDataset, digits_split
from dualgraph.models import MLP, Affine

TRAIN, TEST = digits_split()


def trained(epochs):
    dg.manual_seed(0)
    model = MLP()
    optimizer = optim.Adam(model.parameters(), lr=1e-3)
    loader = DataLoader(TensorDataset(*TRAIN), batch_size=64, shuffle=True, drop_last=True)
    losses = []
    for _ in range(epochs):
        for images, labels in loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(images), labels)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return model, losses


def test_digits_are_learnt():
    model, losses = trained(epochs=15)
    with dg.no_grad():
        scores = model(TEST.images).numpy()
    assert (scores.argmax(1) == TEST.labels).mean() > 0.95
    assert sum(losses[-10:]) < 0.1 * sum(losses[:10])


def test_training_is_reproducible():
    (first, one), (second, two) = trained(epochs=1), trained(epochs=1)
    assert one == two
    for p, q in zip(first.parameters(), second.parameters(), strict=True):
        assert p.numpy().tobytes() == q.numpy().tobytes()


def test_a_line_is_fitted():
    model = Affine()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    x = dg.tensor([-1.0, 0.0, 1.0, 2.0])
    for _ in range(200):
        optimizer.zero_grad()
        F.mse_loss(model(x), x * 2.0 + 1.0).backward()
        optimizer.step()
    assert abs(model.w.item() - 2.0) < 1e-4
    assert abs(model.b.item() - 1.0) < 1e-4
