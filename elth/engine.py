"""One iteration of training, as fast as the device does it: forward, backward, update, mask.

What an iteration computes is the recipe's, its precision too. How it is computed is the engine's:
operation by operation, compiled, or, on a GPU, replayed as one CUDA graph. The ways differ in the
order of sums and so in the last bits; a way gives the same bits every time. Of several workers what
lies between their sums is compiled.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from elth import arithmetic, devices
from elth.errors import ElthError, unknown
from elth.forward import Forward, channels_last, draws
from elth.networks import prunable
from elth.parallel import Gradients, Group, average, rehearsing
from elth.precision import computing
from elth.recipes import Recipe
from elth.repulsion import Repellent, Repulsion
from elth.tensors import contiguous

Way = Literal["eager", "compiled", "compiled-graph"]
"""How an engine computes: each operation on its own, compiled, or as one CUDA graph."""

_OPTIMISER_STATE = ("step", "momentum_buffer", "exp_avg", "exp_avg_sq")
_ENGINES = 100
_WARM_UP = 3
"""Iterations before a CUDA graph is captured, as PyTorch asks for."""
_ROWS = 32
"""Optima for which a CUDA graph of an iteration that repels has room; of more, multiples of it."""


@contextmanager
def _without_compilers_advice() -> Iterator[None]:
    """Keep to itself what PyTorch's compiler says of its own code, and of ours that it likes less.

    A recipe that computes in float32 means it, though TF32 would be faster.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"torch\.")
        warnings.filterwarnings("ignore", message="TensorFloat32 tensor cores")
        yield


@dataclass(frozen=True)
class _Graph:
    """An iteration as a CUDA graph."""

    graph: Any
    gradients: Mapping[str, Tensor | None]
    """Where it leaves gradients: any other iteration gives the weights tensors of its own."""

    def replay(self) -> None:
        """Do the iteration."""
        self.graph.replay()


class Engine:
    """A network, its optimiser and its masks; trains any state of the network, one at a time.

    What is compiled serves every mask, seed and state: ``begin`` copies them in.

    Args:
        network: the network; it is moved to the device, and its weights are overwritten.
        recipe: optimiser, batch size and precision are taken from it.
        device: where to compute.
        shape: channels, height and width of an image. With it a step of the network is compared
            with float64, once on a kind of machine (``elth.arithmetic``); needed to compile.
        evaluation_batch: images in a batch of evaluation; needed to compile.
        compile: compile the iteration, and on a GPU capture it as a CUDA graph. Only batches of the
            recipe's size and of ``evaluation_batch`` are computed so, others operation by
            operation.
        group: the workers that train the network together; each calls ``step`` with its part of
            every batch, and all have the same weights after it. To compile, all of them make their
            engines at once, and either all are compiled or none; CUDA graphs are not captured.

    Raises:
        ElthError: the device does not have the recipe's precision, or the recipe's batches cannot
            be divided among the workers.
        WrongArithmeticError: the machine computes the network wrongly.
        torch.OutOfMemoryError: the GPU has too little memory, to compile as well: no slower way is
            taken for that.
    """

    way: Way
    """How it computes."""
    note: str
    """Why it is not as fast as was asked for; empty otherwise. It is warned of, too."""
    draws: bool
    """Whether the network may draw random numbers in an iteration, as one with dropout."""

    def __init__(
        self,
        network: nn.Module,
        recipe: Recipe,
        device: str | torch.device = "cpu",
        *,
        shape: tuple[int, int, int] = (0, 0, 0),
        evaluation_batch: int = 0,
        compile: bool = False,
        group: Group | None = None,
    ) -> None:
        """Move the network; compile now, so that ``way`` is known before anything is trained."""
        self.device = torch.device(device)
        if recipe.precision == "tf32" and self.device.type != "cuda":
            raise ElthError(
                f"precision tf32 is one of GPUs, and this trains on {self.device.type}; "
                "take float32 or bf16"
            )
        self.recipe, self.group, self.draws = recipe, group, draws(network)
        if group is not None:
            recipe.check_division(group.workers)
        if all(shape):
            arithmetic.ensure(network, recipe, self.device, shape)
        self._forward = Forward(network, recipe, self.device, group, compiled=compile)
        self.network: nn.Module = self._forward.network
        self._statistics = [b for b in self.network.buffers() if b.is_floating_point()]
        self._weights = dict(network.named_parameters())
        self._dtype = next(iter(self._weights.values())).dtype
        self._shared: Gradients | None = None
        if group is not None:
            trained = [weight for weight in self._weights.values() if weight.requires_grad]
            self._shared = Gradients(trained, group.workers, differing=self.draws)
        self._masked: list[str] = []
        self._pruned: list[Tensor] = []
        self._masks: list[Tensor] = []
        self._lr = torch.tensor(recipe.lr, device=self.device)
        self._at = torch.zeros((), dtype=torch.int64, device=self.device)
        self._failed_at = torch.full_like(self._at, -1)
        self._skip = torch.zeros((), device=self.device)
        self._held = torch.zeros((), dtype=torch.bool, device=self.device)
        self._holds = False
        self._total = torch.zeros((), dtype=torch.float64, device=self.device)
        self._repellent: Repellent | None = None
        self._repelled = torch.zeros_like(self._total)
        self._fast_loss: Any = None
        self._fast_logits: Any = None
        self._batch, self._evaluation_batch = recipe.batch_size, evaluation_batch
        if group is not None:  # of its parts
            self._batch //= group.workers
            self._evaluation_batch = len(group.part().of(torch.arange(evaluation_batch)))
        self._graph: _Graph | None = None
        self._gradients: Mapping[str, Tensor | None] | None = None  # those of the last replay
        self._repelling: tuple[Repellent, _Graph] | None = None  # and its own CUDA graph
        self._hidden: list[Tensor] = []
        self._hides = ""
        self._may_hide: frozenset[str] = frozenset()
        self._hiding: dict[
            str, _Graph | None
        ] = {}  # the CUDA graphs of iterations that step hidden ones
        self.way, self.note = "eager", ""
        self._fresh_optimiser()
        if compile and group is None:
            self._compile(shape)
        elif compile and group is not None:
            self._compile_with(group, shape)

    # One state after the other

    def begin(
        self,
        state: Mapping[str, Tensor],
        mask: Mapping[str, Tensor] | None,
        start: int,
        repulsion: Repulsion | None = None,
        hides: str = "",
    ) -> None:
        """Take in a state dict and a mask, with an optimiser that has seen nothing.

        Args:
            state: the weights; those that the mask prunes become zero.
            mask: which weights are trained; all, when there is none.
            start: number of the next iteration.
            repulsion: a loss that keeps the prunable weights from optima, beside cross-entropy.
                Where it has no strength or no optimum, nothing of it is computed.
            hides: whether what the mask prunes keeps a value, which is 0 at first: of ``trained``
                ones all weights are stepped with the gradient at the masked ones, ``frozen`` ones
                get none of it, but the optimiser's momentum and decay.

        Raises:
            ElthError: the mask or an optimum does not fit the network; the message names the
                weight.
        """
        masked = mask or {}
        self.check_mask(masked)
        self._repellent, self._hides = None, ""  # while graphs are recorded
        self._may_hide = frozenset(masked)
        if repulsion is not None and repulsion.acts:
            self._repellent = self._repelled_by(repulsion, masked)
        if self._graph is not None:
            self._hidden = self._hidden_by(hides)
        self._hides = hides
        self.network.load_state_dict(dict(state))
        if self._graph is None:
            self._masked = list(masked)
            self._pruned = [self._weights[name].detach() for name in masked]
            self._masks = [
                torch.empty_like(self._weights[name]).copy_(m) for name, m in masked.items()
            ]
            self._fresh_optimiser()
        else:  # its tensors stay where they are
            for name, place in zip(self._weights, self._masks, strict=True):
                place.copy_(masked[name]) if name in masked else place.fill_(1)
            for values in self.optimiser.state.values():
                for value in values.values():
                    value.zero_()
        if self._graph is None:
            self._hidden = [torch.zeros_like(weight) for weight in self._pruned] if hides else []
        self._apply_masks()
        for hidden in self._hidden:
            hidden.zero_()
        self._hold(False)
        self._at.fill_(start)
        self._failed_at.fill_(-1)
        self._total.zero_()
        self._repelled.zero_()
        if self._repellent is not None:
            self._repellent.vanished.zero_()

    def check_mask(self, mask: Mapping[str, Tensor]) -> None:
        """Refuse a mask that does not fit the network.

        Raises:
            ElthError: it names no weight, is not boolean or has another shape.
        """
        for name, kept in mask.items():
            if name not in self._weights:
                raise unknown("weight of the network, in its mask", name, self._weights)
            if kept.dtype is not torch.bool:
                raise ElthError(
                    f"the mask of '{name}' must be boolean, found {kept.dtype}: compare it with 0"
                )
            if kept.shape != self._weights[name].shape:
                raise ElthError(
                    f"the mask of '{name}' has shape {tuple(kept.shape)}, its weight "
                    f"{tuple(self._weights[name].shape)}"
                )

    def check_changing(self, mask: Mapping[str, Tensor], method: str) -> None:
        """Refuse a mask that changes and leaves weights out, or has some that are not trained.

        Raises:
            ElthError: a prunable weight has no mask, or wants no gradient.
        """
        for name in prunable(self.network):
            if name not in mask:
                raise ElthError(f"the mask of method {method} has nothing for '{name}'")
            if not self._weights[name].requires_grad:
                raise ElthError(
                    f"method {method} moves connections to '{name}', which is frozen "
                    "(requires_grad=False): what comes there would stay zero"
                )

    def check_optimiser(self, optimiser: Mapping[str, Tensor]) -> None:
        """Refuse the state of another optimiser.

        Raises:
            ElthError: it holds what this one does not keep.
        """
        is_adam = isinstance(self.optimiser, torch.optim.Adam)
        other = {"momentum_buffer"} if is_adam else {"exp_avg", "exp_avg_sq"}
        if other & {name.rpartition(".")[2] for name in optimiser}:
            own = type(self.optimiser).__name__
            raise ElthError(f"the checkpoint is of another optimiser than {own}, by its state")

    def resume(
        self,
        optimiser: Mapping[str, Tensor],
        *,
        loss_sum: float,
        at: int,
        repulsion_sum: float = 0.0,
        hidden: Mapping[str, Tensor] | None = None,
    ) -> None:
        """After ``begin`` with the weights of a checkpoint, take in the rest of it.

        Args:
            optimiser: what ``optimiser_state`` gave.
            loss_sum: what ``loss_sum`` would have given.
            at: number of the next iteration.
            repulsion_sum: what ``repulsion_sum`` would have given.
            hidden: what ``hidden_values`` gave.
        """
        for name, value in (hidden or {}).items():
            self._hidden[self._masked.index(name)].copy_(value)
        for name, weight in self._weights.items():
            own = self.optimiser.state[weight]
            for key in _OPTIMISER_STATE:
                if f"{name}.{key}" not in optimiser:
                    continue
                saved = optimiser[f"{name}.{key}"]
                if key not in own:  # in the layout that the optimiser itself would choose
                    where = self.device if saved.dim() or self.device.type == "cuda" else "cpu"
                    like = weight.detach() if saved.dim() else saved
                    own[key] = torch.empty_like(like, dtype=saved.dtype, device=where)
                own[key].copy_(saved)
        self._total.fill_(loss_sum)
        self._repelled.fill_(repulsion_sum)
        self._at.fill_(at)

    def optimiser_state(self) -> dict[str, Tensor]:
        """Copies on the CPU of what the optimiser keeps of each parameter."""
        return contiguous(
            {
                f"{name}.{key}": value
                for name, weight in self._weights.items()
                for key, value in self.optimiser.state.get(weight, {}).items()
                if isinstance(value, Tensor)
            }
        )

    def hidden_values(self) -> dict[str, Tensor]:
        """Copies on the CPU of what pruned weights have kept, where ``begin`` was told so."""
        if not self._hides:
            return {}
        hidden = zip(self._masked, self._hidden, strict=True)
        return contiguous({name: value for name, value in hidden if name in self._may_hide})

    # What a mask that changes asks for (elth.dynamic.Host)

    def weight(self, name: str) -> Tensor:
        """A weight as it is trained, its pruned places zero."""
        return self._weights[name].detach()

    def gradient(self, name: str) -> Tensor:
        """Its dense gradient of the last iteration; of several workers the mean.

        Raises:
            ElthError: the loss does not depend on it.
        """
        own = self._weights[name].grad if self._gradients is None else self._gradients[name]
        if own is None:
            raise ElthError(
                f"the loss does not depend on '{name}', which has no gradient: a mask that changes "
                "needs one of each prunable weight"
            )
        return own

    def momentum(self, name: str) -> Tensor:
        """What the optimiser has as its momentum.

        Raises:
            ElthError: the loss does not depend on the weight.
        """
        weight = self._weights[name]
        found: Tensor | None = self.optimiser.state[weight].get("momentum_buffer")
        if found is None:
            raise ElthError(f"'{name}' has no momentum: its optimiser is {self.recipe.optimiser}")
        if self._gradients is None and weight.grad is None and not found.any():
            self.gradient(name)  # says so
        return found

    def dense(self, name: str) -> Tensor:
        """The weight with the values that its pruned places have kept."""
        weight = self._weights[name].detach()
        return weight + self._hidden[self._masked.index(name)] if self._hides else weight

    @torch.no_grad()
    def exchange(self, masks: Mapping[str, Tensor], *, clear: bool) -> None:
        """Train with other masks from now on; nothing is compiled or recorded anew.

        Args:
            masks: those that change, boolean, on the device.
            clear: forget what the optimiser knows of places that are not in both masks.
        """
        if self._hides:
            torch._foreach_add_(self._pruned, self._hidden)
        for name, mask in masks.items():
            place = self._masks[self._masked.index(name)]
            if clear:
                both = mask & (place != 0)
                for value in self.optimiser.state.get(self._weights[name], {}).values():
                    if isinstance(value, Tensor) and value.dim():
                        value.mul_(both)
            place.copy_(mask)
        if self._hides:
            self._hide()
        else:
            self._apply_masks()

    def step(
        self,
        images: Tensor,
        labels: Tensor,
        lr: float,
        count: int | None = None,
        *,
        hold: bool = False,
    ) -> None:
        """Do an iteration.

        Nothing waits for the device. From the first loss that is not finite, updates are skipped.

        Args:
            images: normalised images (n, C, H, W) on the device.
            labels: classes (n,) on the device.
            lr: learning rate.
            count: images of the whole batch, where this worker has a part of it.
            hold: compute the gradient and leave the weights and the optimiser as they are.
        """
        count = len(labels) if count is None else count
        self._hold(hold)
        whole = count == self.recipe.batch_size and len(labels) == self._batch
        images = channels_last(images.to(self._dtype))
        if self.device.type == "cuda":
            self._lr.fill_(lr)
        else:
            for group in self.optimiser.param_groups:
                group["lr"] = lr
        if count < self.recipe.batch_size:
            self.settle()  # as the workers may have unequal parts of a small batch
        graph = self._graph
        if self._repellent is not None:
            graph = self._repelling[1] if self._repelling is not None else None
        elif self._hides:
            graph = self._hiding.get(self._hides)
        if graph is not None and whole:
            self._images.copy_(images)
            self._labels.copy_(labels)
            graph.replay()
            self._gradients = graph.gradients
        else:
            self._iterate(self._fast_loss if whole else None, images, labels, count)
        if count < self.recipe.batch_size:
            self.settle(count)

    def settle(self, count: int | None = None) -> None:
        """Make the running statistics of all workers their mean, where each follows its own groups.

        They follow linearly, so it is the same whether this is done now or some iterations later.

        Args:
            count: images of the last batch, by which they are weighted if it was a small one.
        """
        unit = self.recipe.batch_norm_group
        if self.group is not None and unit:
            groups = torch.arange(-(-(count or self.recipe.batch_size) // unit))
            average(self._statistics, len(self.group.part().of(groups)) / len(groups))

    def logits(self, images: Tensor) -> Tensor:
        """Logits (n, classes) of a batch, in the mode that the network is in; never as bfloat16."""
        images = channels_last(images.to(self._dtype))
        fast = self._fast_logits is not None and len(images) == self._evaluation_batch
        with computing(self.recipe.precision, self.device):
            return self._fast_logits(images) if fast else self._forward.logits(images)

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Mean training loss of a batch in nats, (), operation by operation."""
        with computing(self.recipe.precision, self.device):
            return self._forward.loss(channels_last(images.to(self._dtype)), labels)

    def loss_sum(self, *, reset: bool = True) -> float:
        """Sum of the losses of all images since it was reset, in nats; the device is waited for."""
        total = float(self._total)
        if reset:
            self._total.zero_()
        return total

    def repulsion_sum(self, *, reset: bool = True) -> float | None:
        """Sum of J over all images since it was reset, at the weights that each was trained with.

        None where nothing repels; the device is waited for.
        """
        if self._repellent is None:
            return None
        self._repellent.warn()
        total = float(self._repelled)
        if reset:
            self._repelled.zero_()
        return total

    def failed_at(self) -> int:
        """The first iteration whose loss was not finite, or -1; the device is waited for."""
        return int(self._failed_at)

    # The iteration

    def _iterate(self, fast_loss: Any, images: Tensor, labels: Tensor, count: int) -> None:
        self._gradients = None
        with computing(self.recipe.precision, self.device):
            self.optimiser.zero_grad(set_to_none=True)
            if self.group is None or fast_loss is not None:
                loss = (fast_loss or self._forward.loss)(images, labels)
            else:  # the workers' mean is that of the whole batch, whose parts may be unequal
                share = self.group.workers / count
                logits = self._forward.logits(images)
                loss = self._forward.loss_of(logits, labels, "sum") * share
            known = loss.detach() if self.group is None else self.group.mean(loss)
            # Known on the device only: from the first loss that is not finite, the fused optimiser
            # skips its updates.
            failed = ~torch.isfinite(known) & (self._failed_at < 0)
            self._failed_at.copy_(torch.where(failed, self._at, self._failed_at))
            self._skip.copy_((self._failed_at >= 0) | self._held)
            torch.autograd.backward(loss)
            if self._shared is not None:
                self._shared.average()
            if self._repellent is not None:
                with computing("float32", self.device):
                    self._repelled += self._repellent.add() * count
            if self._hides:
                self._step_all()
            else:
                self.optimiser.step()
                self._apply_masks()
            self._total += known * count
            self._at += 1

    def _repelled_by(self, repulsion: Repulsion, mask: Mapping[str, Tensor]) -> Repellent:
        """What adds the gradients of a repulsion; the weights may be trained meanwhile."""
        weights = {name: self._weights[name] for name in prunable(self.network)}
        if self._graph is None:
            return Repellent(weights, mask, repulsion)
        rows = -(-len(repulsion.optima) // _ROWS) * _ROWS
        if self._repelling is not None and self._repelling[0].rows == rows:
            self._repelling[0].load(mask, repulsion)
            return self._repelling[0]
        self._repelling = None  # its memory is let go first
        self._repellent = Repellent(weights, mask, repulsion, rows=rows)
        graph = self._recorded()
        if graph is not None:
            self._repelling = (self._repellent, graph)
        return self._repellent

    def _step_all(self) -> None:
        """Step the weights that are pruned, too, each with its gradient at the masked weights."""
        with torch.no_grad():
            if self._hides == "frozen":
                self._mask_gradients()
            torch._foreach_add_(self._pruned, self._hidden)
            self.optimiser.step()
            self._hide()

    def _mask_gradients(self) -> None:
        """Set the gradients of pruned weights to 0; what is not prunable may have none."""
        names = [
            n for n in self._masked if n in self._may_hide or self._weights[n].grad is not None
        ]
        masks = [
            mask for name, mask in zip(self._masked, self._masks, strict=True) if name in names
        ]
        torch._foreach_mul_([self.gradient(name) for name in names], masks)

    def _hide(self) -> None:
        """Part weights into those that are trained and those that are pruned; one of both is 0."""
        torch._foreach_copy_(self._hidden, self._pruned)
        torch._foreach_mul_(self._pruned, self._masks)
        torch._foreach_sub_(self._hidden, self._pruned)

    def _hidden_by(self, hides: str) -> list[Tensor]:
        """Room for the values of pruned weights, and a CUDA graph of iterations that step them."""
        if not hides:
            return self._hidden
        self._hidden = self._hidden or [torch.zeros_like(weight) for weight in self._pruned]
        if hides not in self._hiding:
            self._hides = hides
            self._hiding[hides] = self._recorded()
        return self._hidden

    def _hold(self, hold: bool) -> None:
        """Have the optimiser skip its updates, or no longer."""
        if hold == self._holds:
            return
        self._held.fill_(hold)
        self._holds = hold

    def _apply_masks(self) -> None:
        if self._masks:
            with torch.no_grad():
                torch._foreach_mul_(self._pruned, self._masks)

    def _fresh_optimiser(self) -> None:
        recipe, parameters = self.recipe, self._decayed()
        lr: Any = self._lr if self.device.type == "cuda" else recipe.lr
        if recipe.optimiser == "adam":
            self.optimiser: Any = torch.optim.Adam(
                parameters,
                lr=lr,
                weight_decay=recipe.weight_decay,
                fused=True,
                capturable=self.device.type == "cuda",
            )
        else:
            self.optimiser = torch.optim.SGD(
                parameters,
                lr=lr,
                momentum=recipe.momentum,
                weight_decay=recipe.weight_decay,
                nesterov=recipe.nesterov,
                fused=True,
            )
            # It would make them at its first step, of those that have a gradient then: none where
            # that step is skipped, and it fails at a weight that gets its first gradient later.
            if recipe.momentum:
                for weight in self._weights.values():
                    buffer = torch.zeros_like(weight.detach())
                    self.optimiser.state[weight]["momentum_buffer"] = buffer
        self.optimiser.found_inf = self._skip

    def _decayed(self) -> list[dict[str, Any]]:
        """The parameters in groups, by what weight decay acts on."""
        if self.recipe.decay == "all":
            return [{"params": list(self._weights.values())}]
        names = set(prunable(self.network))
        kernels = [w for name, w in self._weights.items() if name in names]
        others = [w for name, w in self._weights.items() if name not in names]
        groups: list[dict[str, Any]] = [{"params": kernels}]
        groups.append({"params": others, "weight_decay": 0.0})
        return [group for group in groups if group["params"]]

    # Compiling

    def _compile(self, shape: tuple[int, int, int]) -> None:
        batch, evaluation = (
            channels_last(torch.zeros((count, *shape), device=self.device))
            for count in (self._batch, self._evaluation_batch)
        )
        labels = torch.zeros(self._batch, dtype=torch.int64, device=self.device)
        try:
            with _without_compilers_advice():
                self._compile_all(batch, labels, evaluation)
            self.way = "compiled"
        except Exception as error:
            if devices.ran_out(error):  # which says nothing of the compiler
                raise
            self._warn(
                f"compiling {type(self.network).__name__} failed, and it is trained operation by "
                "operation, which is slower",
                error,
            )
            self._fast_loss = self._fast_logits = None
        if self.way == "compiled" and not self.draws:  # else two steps differ by what they draw
            with rehearsing():  # a worker without room for it compares nothing: not for all to see
                self._compare(batch)
        if self.way == "compiled" and self.device.type == "cuda" and self.group is None:
            if self.draws:
                self.note = "a network that draws random numbers is not recorded as a CUDA graph"
            else:
                self._capture(batch, labels)
        if self._graph is None:
            self._fresh_optimiser()

    def _compile_with(self, group: Group, shape: tuple[int, int, int]) -> None:
        """Compile as all workers of a group do, if each of them can.

        One that failed while others wait for it would hang them: it is rehearsed by each alone.
        What they send is compared before anything is trained, as compiled code decides the order.
        """
        error: Exception | None = None
        with rehearsing() as sums:
            try:
                self._compile(shape)
            except Exception as found:  # the others wait to hear of it
                error = found
        told = "\n".join(sums) if self.way == "compiled" else ""
        broken, failed = (hashlib.sha256(text).digest() for text in (b"broken", b""))
        answers = group.gather(hashlib.sha256(told.encode()).digest() if error is None else broken)
        if error is not None:
            raise error
        if broken in answers:
            ranks = ", ".join(str(rank) for rank, one in enumerate(answers) if one == broken)
            raise ElthError(
                f"worker {ranks} of these cannot train, and says why: see its own error"
            )
        if self.way == "compiled" and len(set(answers)) == 1:
            return
        if self.way == "compiled":
            others = [str(rank) for rank, one in enumerate(answers) if one == failed]
            why = f"compiling failed for worker {', '.join(others)}"
            if not others:
                why = "their compiled code adds up in different orders"
            self._warn("these workers train operation by operation, which is slower", why)
            self.way, self._fast_loss, self._fast_logits = "eager", None, None
        # Compiled code has layers of its own on a GPU.
        self._forward = Forward(self.network, self.recipe, self.device, group)

    def _compile_all(self, batch: Tensor, labels: Tensor, evaluation: Tensor) -> None:
        """Let everything be compiled that training and evaluation call."""
        arithmetic.keep_apart()
        # All engines share the code that is compiled, so PyTorch counts them as one function.
        torch._dynamo.config.recompile_limit = _ENGINES
        self._fast_loss = torch.compile(self._forward.loss, dynamic=False, fullgraph=True)
        self._fast_logits = torch.compile(self._forward.logits, dynamic=False, fullgraph=True)
        self.network.train()
        self._iterate(self._fast_loss, batch, labels, self.recipe.batch_size)
        self.network.eval()
        with torch.no_grad():
            self.logits(evaluation)

    def _compare(self, like: Tensor) -> None:
        """Compare compiled code with the network, where there is room to do both."""
        try:
            with computing(self.recipe.precision, self.device):
                arithmetic.ensure_alike(
                    self.network, self._forward.loss, self._fast_loss, self.recipe, like
                )
        except arithmetic.WrongArithmeticError:
            raise
        except RuntimeError as error:
            self._warn("compiled code could not be compared with the network", error)

    def _capture(self, images: Tensor, labels: Tensor) -> None:
        """Capture the iteration as a CUDA graph, masks of all parameters in it."""
        self._images, self._labels = images, labels
        self._masked = list(self._weights)
        self._pruned = [weight.detach() for weight in self._weights.values()]
        self._masks = [torch.ones_like(weight) for weight in self._weights.values()]
        self._graph = self._recorded()
        if self._graph is not None:
            self.way = "compiled-graph"
        else:
            self._masked, self._pruned, self._masks = [], [], []

    def _recorded(self) -> _Graph | None:
        """The iteration as a CUDA graph, on the tensors of now; it is trained some iterations."""
        images, labels = self._images, self._labels
        self.network.train()
        try:
            with torch.cuda.device(self.device):  # streams are of the current one
                side = torch.cuda.Stream()
                side.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(side):
                    for _ in range(_WARM_UP):
                        self._iterate(self._fast_loss, images, labels, len(labels))
                torch.cuda.current_stream().wait_stream(side)
                graph = torch.cuda.CUDAGraph()
                self.optimiser.zero_grad(set_to_none=True)
                # PyTorch's own stream for it is of the device on which it captured first.
                with torch.cuda.graph(graph, stream=side):
                    self._iterate(self._fast_loss, images, labels, len(labels))
                before = int(self._at)
                graph.replay()
                if int(self._at) == before:
                    raise RuntimeError("what was captured does nothing")
            return _Graph(graph, {name: weight.grad for name, weight in self._weights.items()})
        except Exception as error:
            if devices.ran_out(error):
                raise
            self._warn(
                "no CUDA graph could be captured, and each operation is started on its own, which "
                "is slower",
                error,
            )
            return None

    def _warn(self, what: str, error: Exception | str) -> None:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        self.note = f"{what}: {reason}"
        warnings.warn(self.note, stacklevel=5)
