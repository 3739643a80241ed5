"""Loggers that are switched off."""

from vgbench.config.compose import compose


def test_a_logger_that_was_not_chosen_can_be_switched_off() -> None:
    config = compose(["method=alvg", "dataset=refshapes", "logger.tensorboard=false", "logger.csv=false"])
    assert config.logger.tensorboard is False and config.logger.csv is False
